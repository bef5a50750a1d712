// The Merkle tree of RFC 9162, 2.1, over the bytes of records: pure arithmetic, no storage.
//
//   leaf = SHA-256(0x00 || entry)      node = SHA-256(0x01 || left || right)      no entries: SHA-256("")
//
// A node (level, index) is the root over the entries index << level .. ((index + 1) << level) - 1; level 0 is the
// leaves. Complete nodes never change, so a store of them serves every size the tree ever had, and what these
// functions read is O(log size) of them, through the caller's ReadNode.
//
// Sizes count entries, indexes start at 0: record seq is entry seq - 1. Values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/result.h"

namespace ledger {

using TreeHash = std::array<char, 32>;

inline std::string_view view_of(const TreeHash& hash) { return {hash.data(), hash.size()}; }
// Errc::invalid when `bytes` are not 32.
Result<TreeHash> tree_hash_from(std::string_view bytes);

TreeHash leaf_hash(std::string_view entry);
// SHA-256 of anything else.
TreeHash sha256_of(std::string_view bytes);
TreeHash node_hash(const TreeHash& left, const TreeHash& right);

struct TreeHead {
  std::uint64_t size = 0;
  TreeHash root{};
  bool operator==(const TreeHead&) const = default;
};

// A complete node; its error is passed on.
using ReadNode = std::function<Result<TreeHash>(unsigned level, std::uint64_t index)>;

// The right edge of a growing tree: all that appending needs, at most 64 hashes.
class TreeEdge {
 public:
  TreeEdge() = default;
  static Result<TreeEdge> load(std::uint64_t size, const ReadNode& read);

  // Adds a complete subtree of 1 << level entries to a tree whose size is a multiple of that. Appends to `completed`
  // its own hash and those of the larger subtrees that it completes, smallest first: nodes (level, size >> level),
  // (level + 1, ...), ... of the new size.
  void append(const TreeHash& hash, std::vector<TreeHash>* completed = nullptr, unsigned level = 0);

  std::uint64_t size() const { return size_; }
  // The complete subtrees that make it up, the largest first.
  const std::vector<TreeHash>& peaks() const { return peaks_; }
  TreeHash root() const;
  TreeHead head() const { return {size_, root()}; }

 private:
  std::uint64_t size_ = 0;
  std::vector<TreeHash> peaks_;  // the largest subtree first
};

Result<TreeHash> root_at(std::uint64_t size, const ReadNode& read);

using TreeProof = std::vector<TreeHash>;

// RFC 9162, 2.1.3.1 and 2.1.4.1. Errc::invalid unless index < size, and from <= to. A consistency proof from 0, or
// between equal sizes, is empty.
Result<TreeProof> inclusion_proof(std::uint64_t index, std::uint64_t size, const ReadNode& read);
Result<TreeProof> consistency_proof(std::uint64_t from, std::uint64_t to, const ReadNode& read);

// RFC 9162, 2.1.3.2 and 2.1.4.2: does the proof show it? A proof of the wrong length shows nothing. A tree of size 0
// has the one root it can have, and everything grows out of it.
bool shows_inclusion(const TreeProof& proof, std::uint64_t index, const TreeHash& leaf, const TreeHead& head);
bool shows_consistency(const TreeProof& proof, const TreeHead& from, const TreeHead& to);

// Many entries of one tree proved together. Going down from the root, what holds none of them is one hash, its root;
// the proof is these hashes from left to right, so an audit path is shared by all that need it, and a range of entries
// takes at most two hashes per level. Who checks needs the entries in order and one hash at a time.
using AnyWanted = std::function<bool(std::uint64_t begin, std::uint64_t end)>;  // among the entries begin..end-1
// `sink` gets the hashes; false from it is Errc::io. Errc::invalid when nothing is wanted.
Result<void> subset_proof(std::uint64_t size, const AnyWanted& any, const ReadNode& read,
                          const std::function<bool(const TreeHash&)>& sink);
// The root that entries and proof lead to: `leaf` gives the hash of the next entry, `other` the next of the proof;
// their errors are passed on. Nothing is shown unless both are used up then.
using NextHash = std::function<Result<TreeHash>()>;
Result<TreeHash> root_of_subset(std::uint64_t size, const AnyWanted& any, const NextHash& leaf, const NextHash& other);

}  // namespace ledger
