#include "ledger/archive_shelf.h"

#include <algorithm>

namespace ledger {
namespace {

constexpr std::size_t kOpenFiles = 16;
constexpr std::size_t kBlocks = 16;  // of 128 KiB as a rule

std::string records_text(const ArchivedRange& range) {
  return "records " + std::to_string(range.from) + " to " + std::to_string(range.to);
}

// Moves what `fits` to the front; nullptr when nothing does.
template <class List, class Fits>
typename List::value_type touch(List& list, const Fits& fits) {
  const auto found = std::find_if(list.begin(), list.end(), fits);
  if (found == list.end()) return nullptr;
  list.splice(list.begin(), list, found);
  return list.front();
}

}  // namespace

void ArchiveShelf::put(std::vector<ArchivedRange> ranges) {
  std::map<Seq, ArchivedRange> sorted;
  for (ArchivedRange& range : ranges) sorted.insert_or_assign(range.from, range);
  const std::lock_guard lock(mutex_);
  ranges_ = std::move(sorted);
  open_.remove_if([&](const FilePtr& file) {
    const auto range = ranges_.find(file->from());
    return range == ranges_.end() || range->second.is_removed();
  });
}

std::vector<ArchivedRange> ArchiveShelf::ranges() const { return overlapping(1, UINT64_MAX); }

std::vector<ArchivedRange> ArchiveShelf::overlapping(Seq from, Seq to) const {
  const std::lock_guard lock(mutex_);
  std::vector<ArchivedRange> found;
  auto range = ranges_.upper_bound(from);
  if (range != ranges_.begin() && std::prev(range)->second.to >= from) --range;
  for (; range != ranges_.end() && range->first <= to; ++range) found.push_back(range->second);
  return found;
}

Result<ArchiveShelf::FilePtr> ArchiveShelf::file_of(const ArchivedRange& range) const {
  if (range.is_removed())
    return Error{Errc::archived, records_text(range) + " were removed with their archive (archive_removed)"};
  {
    const std::lock_guard lock(mutex_);
    if (FilePtr file = touch(open_, [&](const FilePtr& one) { return one->digest() == range.digest; })) return file;
  }
  const std::string name = archive_name(range.from, range.to);
  Result<FilePtr> file = ArchiveFile::open(dir_ / name);
  if (!file && file.error().code == Errc::not_found)
    return Error{Errc::archived, records_text(range) + " are in the archive " + name + ", which is not in " +
                                     dir_.string() + ": put it back there, or name its directory with --archives"};
  if (!file) return file.error();
  if ((*file)->digest() != range.digest || (*file)->ledger_id() != ledger_id_)
    return Error{Errc::corrupt, "the archive " + (dir_ / name).string() + " is not the one that " +
                                    records_text(range) + " were sealed into: put the right one in its place"};
  const std::lock_guard lock(mutex_);
  open_.push_front(*file);
  if (open_.size() > kOpenFiles) open_.pop_back();
  return file;
}

Result<ArchiveShelf::BlockPtr> ArchiveShelf::block_of(const ArchivedRange& range, Seq seq) const {
  const Result<FilePtr> file = file_of(range);
  if (!file) return file.error();
  {
    const std::lock_guard lock(mutex_);
    if (BlockPtr block = touch(blocks_, [&](const BlockPtr& one) { return one->holds(seq); })) return block;
  }
  Result<BlockPtr> block = (*file)->block_of(seq);
  if (!block) return block.error();
  const std::lock_guard lock(mutex_);
  blocks_.push_front(*block);
  if (blocks_.size() > kBlocks) blocks_.pop_back();
  return block;
}

Result<std::string> ArchiveShelf::read(Seq seq) const {
  const std::vector<ArchivedRange> ranges = overlapping(seq, seq);
  if (ranges.empty()) return Error{Errc::not_found, "no archive has record " + std::to_string(seq)};
  const Result<BlockPtr> block = block_of(ranges.front(), seq);
  if (!block) return block.error();
  return std::string((*block)->records[seq - (*block)->first]);
}

bool ArchiveShelf::scan(Seq from, Seq to, const Visit& visit) const {
  for (const ArchivedRange& range : overlapping(from, to)) {
    const Seq last = std::min(to, range.to);
    for (Seq seq = std::max(from, range.from); seq <= last;) {
      const Result<BlockPtr> block = block_of(range, seq);
      // A damaged block says nothing of the next one; a file that is not there has none.
      Seq end = last;
      if (block)
        end = std::min(last, (*block)->last());
      else if (const Result<FilePtr> file = file_of(range))
        end = std::min(last, (*file)->span_of(seq).second);
      for (; seq <= end; ++seq) {
        const bool more = block ? visit(seq, (*block)->records[seq - (*block)->first]) : visit(seq, block.error());
        if (!more) return false;
      }
    }
  }
  return true;
}

}  // namespace ledger
