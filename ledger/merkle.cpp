#include "ledger/merkle.h"

#include <algorithm>
#include <bit>

#include "ledger/openssl_handles.h"

namespace ledger {
namespace {

constexpr int kNoPrefix = -1;
constexpr int kLeafPrefix = 0;
constexpr int kNodePrefix = 1;

// One context a thread, and one look-up of the algorithm: OpenSSL 3 takes longer to find SHA-256 than to compute
// it.
class Sha256 {
 public:
  Sha256() { must(context_ != nullptr && algorithm() != nullptr, "SHA-256"); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256() { EVP_MD_CTX_free(context_); }

  TreeHash of(int prefix, std::string_view first, std::string_view second = {}) {
    TreeHash hash;
    bool ok = EVP_DigestInit_ex(context_, algorithm(), nullptr) == 1;
    const auto byte = static_cast<unsigned char>(prefix);
    if (prefix != kNoPrefix) ok = ok && EVP_DigestUpdate(context_, &byte, 1) == 1;
    ok = ok && EVP_DigestUpdate(context_, first.data(), first.size()) == 1;
    ok = ok && EVP_DigestUpdate(context_, second.data(), second.size()) == 1;
    unsigned length = 0;
    ok = ok && EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(hash.data()), &length) == 1;
    must(ok && length == hash.size(), "SHA-256");
    return hash;
  }

 private:
  static const EVP_MD* algorithm() {
    static const EVP_MD* const fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);  // for the life of the process
    return fetched;
  }
  EVP_MD_CTX* context_ = EVP_MD_CTX_new();
};

Sha256& sha256() {
  thread_local Sha256 hasher;
  return hasher;
}

TreeHash empty_root() { return sha256().of(kNoPrefix, {}); }

// MTH of entries begin..end-1, where begin is a multiple of the range's size rounded up to a power of two.
Result<TreeHash> hash_of(std::uint64_t begin, std::uint64_t end, const ReadNode& read) {
  const std::uint64_t count = end - begin;
  if (std::has_single_bit(count)) {
    const auto level = static_cast<unsigned>(std::countr_zero(count));
    return read(level, begin >> level);
  }
  const std::uint64_t left = std::bit_floor(count);
  const Result<TreeHash> first = hash_of(begin, begin + left, read);
  if (!first) return first;
  const Result<TreeHash> second = hash_of(begin + left, end, read);
  if (!second) return second;
  return node_hash(*first, *second);
}

// The largest power of two smaller than count (count > 1).
std::uint64_t left_part(std::uint64_t count) { return std::bit_floor(count - 1); }

Result<void> add_subset(std::uint64_t begin, std::uint64_t end, const AnyWanted& any, const ReadNode& read,
                        const std::function<bool(const TreeHash&)>& sink) {
  if (!any(begin, end)) {
    const Result<TreeHash> hash = hash_of(begin, end, read);
    if (!hash) return hash.error();
    if (!sink(*hash)) return Error{Errc::io, "the proof could not be written"};
    return {};
  }
  if (end - begin == 1) return {};
  const std::uint64_t middle = begin + left_part(end - begin);
  if (const Result<void> left = add_subset(begin, middle, any, read, sink); !left) return left;
  return add_subset(middle, end, any, read, sink);
}

Result<TreeHash> fold_subset(std::uint64_t begin, std::uint64_t end, const AnyWanted& any, const NextHash& leaf,
                             const NextHash& other) {
  if (!any(begin, end)) return other();
  if (end - begin == 1) return leaf();
  const std::uint64_t middle = begin + left_part(end - begin);
  const Result<TreeHash> left = fold_subset(begin, middle, any, leaf, other);
  if (!left) return left;
  const Result<TreeHash> right = fold_subset(middle, end, any, leaf, other);
  if (!right) return right;
  return node_hash(*left, *right);
}

}  // namespace

Result<TreeHash> tree_hash_from(std::string_view bytes) {
  TreeHash hash;
  if (bytes.size() != hash.size()) return Error{Errc::invalid, "a SHA-256 hash has 32 bytes"};
  std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

TreeHash leaf_hash(std::string_view entry) { return sha256().of(kLeafPrefix, entry); }

TreeHash sha256_of(std::string_view bytes) { return sha256().of(kNoPrefix, bytes); }

TreeHash node_hash(const TreeHash& left, const TreeHash& right) {
  return sha256().of(kNodePrefix, view_of(left), view_of(right));
}

Result<TreeEdge> TreeEdge::load(std::uint64_t size, const ReadNode& read) {
  TreeEdge edge;
  edge.size_ = size;
  for (unsigned level = 64; level-- > 0;) {
    if ((size >> level & 1) == 0) continue;
    const Result<TreeHash> peak = read(level, (size >> level) - 1);
    if (!peak) return peak.error();
    edge.peaks_.push_back(*peak);
  }
  return edge;
}

void TreeEdge::append(const TreeHash& hash, std::vector<TreeHash>* completed, unsigned level) {
  TreeHash subtree = hash;
  if (completed != nullptr) completed->push_back(subtree);
  for (std::uint64_t count = size_ >> level; (count & 1) != 0; count >>= 1) {
    subtree = node_hash(peaks_.back(), subtree);
    peaks_.pop_back();
    if (completed != nullptr) completed->push_back(subtree);
  }
  peaks_.push_back(subtree);
  size_ += std::uint64_t{1} << level;
}

TreeHash TreeEdge::root() const {
  if (peaks_.empty()) return empty_root();
  TreeHash root = peaks_.back();
  for (std::size_t i = peaks_.size() - 1; i-- > 0;) root = node_hash(peaks_[i], root);
  return root;
}

Result<TreeHash> root_at(std::uint64_t size, const ReadNode& read) {
  if (size == 0) return empty_root();
  return hash_of(0, size, read);
}

Result<TreeProof> inclusion_proof(std::uint64_t index, std::uint64_t size, const ReadNode& read) {
  if (index >= size) return Error{Errc::invalid, "a tree of that size has no such entry"};
  TreeProof proof;
  std::uint64_t begin = 0;
  std::uint64_t end = size;
  while (end - begin > 1) {  // from the root down; the proof is from the leaf up
    const std::uint64_t middle = begin + left_part(end - begin);
    const bool in_left = index < middle;
    const Result<TreeHash> sibling = in_left ? hash_of(middle, end, read) : hash_of(begin, middle, read);
    if (!sibling) return sibling.error();
    proof.push_back(*sibling);
    (in_left ? end : begin) = middle;
  }
  std::reverse(proof.begin(), proof.end());
  return proof;
}

Result<TreeProof> consistency_proof(std::uint64_t from, std::uint64_t to, const ReadNode& read) {
  if (from > to) return Error{Errc::invalid, "a tree is not consistent with a larger one that came before it"};
  TreeProof proof;
  if (from == 0 || from == to) return proof;
  std::uint64_t begin = 0;
  std::uint64_t end = to;
  bool whole = true;  // the part in hand begins at 0: the verifier knows its old root
  while (end != from) {
    const std::uint64_t middle = begin + left_part(end - begin);
    const bool in_left = from <= middle;
    const Result<TreeHash> sibling = in_left ? hash_of(middle, end, read) : hash_of(begin, middle, read);
    if (!sibling) return sibling.error();
    proof.push_back(*sibling);
    whole = whole && in_left;
    (in_left ? end : begin) = middle;
  }
  if (!whole) {
    const Result<TreeHash> last = hash_of(begin, end, read);
    if (!last) return last.error();
    proof.push_back(*last);
  }
  std::reverse(proof.begin(), proof.end());
  return proof;
}

bool shows_inclusion(const TreeProof& proof, std::uint64_t index, const TreeHash& leaf, const TreeHead& head) {
  if (index >= head.size) return false;
  std::uint64_t node = index;
  std::uint64_t last = head.size - 1;
  TreeHash root = leaf;
  for (const TreeHash& sibling : proof) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      root = node_hash(sibling, root);
      while ((node & 1) == 0 && node != 0) node >>= 1, last >>= 1;
    } else {
      root = node_hash(root, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && root == head.root;
}

bool shows_consistency(const TreeProof& proof, const TreeHead& from, const TreeHead& to) {
  if (from.size > to.size) return false;
  if (from.size == to.size) return proof.empty() && from.root == to.root;
  if (from.size == 0) return proof.empty() && from.root == empty_root();
  if (proof.empty()) return false;
  std::size_t next = 0;
  const TreeHash first = std::has_single_bit(from.size) ? from.root : proof[next++];
  std::uint64_t node = from.size - 1;
  std::uint64_t last = to.size - 1;
  while ((node & 1) != 0) node >>= 1, last >>= 1;
  TreeHash old_root = first;
  TreeHash new_root = first;
  for (; next < proof.size(); ++next) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      old_root = node_hash(proof[next], old_root);
      new_root = node_hash(proof[next], new_root);
      while ((node & 1) == 0 && node != 0) node >>= 1, last >>= 1;
    } else {
      new_root = node_hash(new_root, proof[next]);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && old_root == from.root && new_root == to.root;
}

Result<void> subset_proof(std::uint64_t size, const AnyWanted& any, const ReadNode& read,
                          const std::function<bool(const TreeHash&)>& sink) {
  if (size == 0 || !any(0, size)) return Error{Errc::invalid, "a tree of that size has none of these entries"};
  return add_subset(0, size, any, read, sink);
}

Result<TreeHash> root_of_subset(std::uint64_t size, const AnyWanted& any, const NextHash& leaf,
                                const NextHash& other) {
  if (size == 0) return Error{Errc::invalid, "an empty tree has no entries"};
  return fold_subset(0, size, any, leaf, other);
}

}  // namespace ledger
