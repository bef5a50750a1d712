// One record in the form that an audit tool reads. docs/EXPORTS.md has the mapping, kind by kind and field by field.
//
//   jsonl        docs/EVENTS.md; complete, the one that `--input` reads
//   csv          RFC 4180 with a header line; a cell that a spreadsheet would take for a formula begins with '
//   cloudevents  CloudEvents 1.0.2, JSON format; `data` is the record
//   ocsf         OCSF 1.8.0: classes 1008, 3002, 3004, 6003
//   ecs          Elastic Common Schema 8.17
//   k8s-audit    audit.k8s.io/v1 Event, level Metadata
//   cef          ArcSight CEF:0
//   syslog       RFC 5424, facility 13 (log audit), one message a line
//
// Deterministic: the same record and source give the same bytes. Every line is one record and ends with LF, or CR LF in
// CSV; no value can break out of its field, whatever a stranger put into it. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/event.h"

namespace ledger::replay {

enum class AuditFormat { jsonl, csv, cloudevents, ocsf, ecs, k8s_audit, cef, syslog };

std::optional<AuditFormat> audit_format_from_name(std::string_view name);
std::string_view name_of(AuditFormat format);
std::vector<std::string> audit_format_names();

// Where records come from.
struct AuditSource {
  std::string log;      // id of the log
  std::string version;  // of this program
};

// What stands before the first record; empty in every format but csv.
std::string audit_header(AuditFormat format);
std::string audit_line(AuditFormat format, const Record& record, const AuditSource& source);

}  // namespace ledger::replay
