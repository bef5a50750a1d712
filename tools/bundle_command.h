// What `ledger export` does beyond writing records: bundles (replay/bundle.h), and the record of an export.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ledger/event_log.h"
#include "replay/export.h"

namespace ledger::tools {

struct BundleArguments {
  std::string path;   // --bundle; empty: none is asked for
  std::string since;  // --since-bundle
  std::string actor;  // --actor
  bool record = false;  // --record
};
// Adds the options; excludes what does not go with them by the names of cmd_export.cpp.
void add_bundle_options(CLI::App& command, BundleArguments& arguments);

struct BundleRequest {
  std::filesystem::path data_dir;
  replay::ExportOptions what{};
  std::string node, cause;             // as given; `what.nodes` are those of the cause
  std::vector<std::string> redacted{};
  BundleArguments arguments{};
};
// Writes, checks and records it; nothing is left under its name unless all of that was done. The exit status.
int make_bundle(const EventLog& log, const BundleRequest& request);

// Appends export_created: through the running server, or as the owner when none runs.
Result<Seq> record_export_of(const std::filesystem::path& data_dir, const ExportCreated& exported,
                             const std::string& note);
// The same for a file of records that is complete; says so on standard error. The exit status.
int record_file(const std::filesystem::path& data_dir, const replay::ExportReport& report, std::string_view format,
                const std::string& file, const std::string& note, const std::string& actor);

// What the options leave out, in words; empty: nothing.
std::string filter_in_words(const BundleRequest& request, bool names_redacted);

}  // namespace ledger::tools
