// Damage on purpose: reaches below EventLog.
#pragma once

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <filesystem>
#include <string>
#include <vector>

#include "ledger/event.h"

namespace ledger::test {

// Puts other bytes under a seq below 256. The log in `dir` must be closed.
inline void overwrite_record(const std::filesystem::path& dir, Seq seq, const std::string& bytes) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const char* name : {"default", "events", "index", "nodes", "tree"})
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, dir.string(), families, &handles, &db).ok());
  std::string key(8, '\0');
  key[7] = static_cast<char>(seq);
  EXPECT_TRUE(db->Put({}, handles[1], key, bytes).ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
}

}  // namespace ledger::test
