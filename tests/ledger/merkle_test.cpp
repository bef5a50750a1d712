#include "ledger/merkle.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "ledger/credentials.h"

namespace ledger {
namespace {

using Entries = std::vector<std::string>;

std::string bytes(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return out;
}

std::string hex(const TreeHash& hash) { return to_hex(view_of(hash)); }

std::vector<std::string> hex(const TreeProof& proof) {
  std::vector<std::string> out;
  for (const TreeHash& hash : proof) out.push_back(hex(hash));
  return out;
}

// RFC 9162, 2.1.1, word for word.
TreeHash naive_root(const Entries& entries) {
  const std::size_t n = entries.size();
  if (n == 0) return *tree_hash_from(bytes("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
  if (n == 1) return *tree_hash_from(bytes(sha256_hex('\0' + entries[0])));
  std::size_t k = 1;
  while (k * 2 < n) k *= 2;
  const auto middle = entries.begin() + static_cast<std::ptrdiff_t>(k);
  const TreeHash left = naive_root(Entries(entries.begin(), middle));
  const TreeHash right = naive_root(Entries(middle, entries.end()));
  return *tree_hash_from(bytes(sha256_hex('\1' + std::string(view_of(left)) + std::string(view_of(right)))));
}

// RFC 9162, 2.1.3.1: PATH(m, D_n).
TreeProof naive_path(std::size_t m, const Entries& entries) {
  const std::size_t n = entries.size();
  if (n <= 1) return {};
  std::size_t k = 1;
  while (k * 2 < n) k *= 2;
  const auto middle = entries.begin() + static_cast<std::ptrdiff_t>(k);
  const Entries left(entries.begin(), middle);
  const Entries right(middle, entries.end());
  TreeProof proof = m < k ? naive_path(m, left) : naive_path(m - k, right);
  proof.push_back(naive_root(m < k ? right : left));
  return proof;
}

// RFC 9162, 2.1.4.1: SUBPROOF(m, D_n, b).
TreeProof naive_subproof(std::size_t m, const Entries& entries, bool b) {
  const std::size_t n = entries.size();
  if (m == n) return b ? TreeProof{} : TreeProof{naive_root(entries)};
  std::size_t k = 1;
  while (k * 2 < n) k *= 2;
  const auto middle = entries.begin() + static_cast<std::ptrdiff_t>(k);
  const Entries left(entries.begin(), middle);
  const Entries right(middle, entries.end());
  TreeProof proof = m <= k ? naive_subproof(m, left, b) : naive_subproof(m - k, right, false);
  proof.push_back(naive_root(m <= k ? right : left));
  return proof;
}

// A tree whose complete nodes are kept, as the log keeps them.
class KeptTree {
 public:
  explicit KeptTree(const Entries& entries) {
    for (const std::string& entry : entries) add(entry);
  }
  void add(const std::string& entry) {
    std::vector<TreeHash> completed;
    std::uint64_t index = edge_.size();
    edge_.append(leaf_hash(entry), &completed);
    for (unsigned level = 0; level < completed.size(); ++level, index >>= 1)
      nodes_[{level, index}] = completed[level];
  }
  ReadNode read() {
    return [this](unsigned level, std::uint64_t index) -> Result<TreeHash> {
      ++reads_;
      const auto found = nodes_.find({level, index});
      if (found == nodes_.end()) return Error{Errc::not_found, "no such node"};
      return found->second;
    };
  }
  const TreeEdge& edge() const { return edge_; }
  std::size_t nodes() const { return nodes_.size(); }
  int reads_ = 0;

 private:
  TreeEdge edge_;
  std::map<std::pair<unsigned, std::uint64_t>, TreeHash> nodes_;
};

Entries some_entries(std::size_t count) {
  Entries entries;
  for (std::size_t i = 0; i < count; ++i) entries.push_back("record " + std::to_string(i));
  return entries;
}

Entries first(const Entries& entries, std::size_t count) {
  return Entries(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(count));
}

// The tree of certificate-transparency-go and of the reference implementations of RFC 6962.
const Entries& reference_entries() {
  static const Entries kEntries = {bytes(""),
                                   bytes("00"),
                                   bytes("10"),
                                   bytes("2021"),
                                   bytes("3031"),
                                   bytes("40414243"),
                                   bytes("5051525354555657"),
                                   bytes("606162636465666768696a6b6c6d6e6f")};
  return kEntries;
}

TEST(MerkleTest, RootsOfTheReferenceTree) {
  const char* const kRoots[] = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  KeptTree tree({});
  EXPECT_EQ(hex(tree.edge().root()), kRoots[0]);
  for (std::size_t size = 1; size <= reference_entries().size(); ++size) {
    tree.add(reference_entries()[size - 1]);
    EXPECT_EQ(hex(tree.edge().root()), kRoots[size]);
  }
  for (std::size_t size = 0; size <= 8; ++size) EXPECT_EQ(hex(*root_at(size, tree.read())), kRoots[size]);
}

TEST(MerkleTest, InclusionProofsOfTheReferenceTree) {
  KeptTree tree(reference_entries());
  const auto proof = [&](std::uint64_t index, std::uint64_t size) {
    return hex(*inclusion_proof(index, size, tree.read()));
  };
  using Hashes = std::vector<std::string>;
  EXPECT_EQ(proof(0, 1), Hashes{});
  EXPECT_EQ(proof(0, 8), (Hashes{"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                                 "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                                 "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}));
  EXPECT_EQ(proof(5, 8), (Hashes{"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                                 "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                                 "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}));
  EXPECT_EQ(proof(2, 3), (Hashes{"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"}));
  EXPECT_EQ(proof(1, 5), (Hashes{"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                 "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                                 "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}));
}

TEST(MerkleTest, ConsistencyProofsOfTheReferenceTree) {
  KeptTree tree(reference_entries());
  const auto proof = [&](std::uint64_t from, std::uint64_t to) {
    return hex(*consistency_proof(from, to, tree.read()));
  };
  using Hashes = std::vector<std::string>;
  EXPECT_EQ(proof(1, 1), Hashes{});
  EXPECT_EQ(proof(1, 8), (Hashes{"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                                 "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                                 "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}));
  EXPECT_EQ(proof(6, 8), (Hashes{"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                                 "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                                 "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}));
  EXPECT_EQ(proof(2, 5), (Hashes{"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                                 "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}));
}

// Every index and every pair of sizes, against the definition.
TEST(MerkleTest, SmallTreesAreAsDefined) {
  const Entries entries = some_entries(35);
  KeptTree tree(entries);
  for (std::size_t to = 0; to <= entries.size(); ++to) {
    const Entries part = first(entries, to);
    const TreeHead head{to, naive_root(part)};
    ASSERT_EQ(*root_at(to, tree.read()), head.root);
    for (std::size_t index = 0; index < to; ++index) {
      const TreeProof proof = *inclusion_proof(index, to, tree.read());
      ASSERT_EQ(proof, naive_path(index, part));
      ASSERT_TRUE(shows_inclusion(proof, index, leaf_hash(entries[index]), head));
    }
    for (std::size_t from = 0; from <= to; ++from) {
      const TreeProof proof = *consistency_proof(from, to, tree.read());
      if (from > 0) {
        ASSERT_EQ(proof, naive_subproof(from, part, true));
      }
      ASSERT_TRUE(shows_consistency(proof, {from, naive_root(first(entries, from))}, head));
    }
  }
}

// What shows one thing shows nothing else: any other size, index, root, or a changed, cut or longer proof.
TEST(MerkleTest, ProofsShowOneThingOnly) {
  const Entries entries = some_entries(20);
  KeptTree tree(entries);
  const auto head_at = [&](std::uint64_t size) { return TreeHead{size, *root_at(size, tree.read())}; };
  TreeHash other = leaf_hash("another");
  for (std::uint64_t size = 1; size <= entries.size(); ++size)
    for (std::uint64_t index = 0; index < size; ++index) {
      const TreeProof proof = *inclusion_proof(index, size, tree.read());
      const TreeHash leaf = leaf_hash(entries[index]);
      EXPECT_FALSE(shows_inclusion(proof, index, other, head_at(size)));
      EXPECT_FALSE(shows_inclusion(proof, index, leaf, {size, other}));
      EXPECT_FALSE(shows_inclusion(proof, size, leaf, head_at(size)));
      for (std::uint64_t wrong = 0; wrong < size; ++wrong)
        EXPECT_EQ(shows_inclusion(proof, wrong, leaf, head_at(size)), wrong == index);
      TreeProof longer = proof;
      longer.push_back(other);
      EXPECT_FALSE(shows_inclusion(longer, index, leaf, head_at(size)));
      for (std::size_t i = 0; i < proof.size(); ++i) {
        TreeProof changed = proof;
        changed[i][5] = static_cast<char>(changed[i][5] ^ 1);
        EXPECT_FALSE(shows_inclusion(changed, index, leaf, head_at(size)));
        changed = proof;
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
        EXPECT_FALSE(shows_inclusion(changed, index, leaf, head_at(size)));
      }
    }
  for (std::uint64_t to = 2; to <= entries.size(); ++to)
    for (std::uint64_t from = 1; from < to; ++from) {
      const TreeProof proof = *consistency_proof(from, to, tree.read());
      EXPECT_FALSE(shows_consistency(proof, {from, other}, head_at(to)));
      EXPECT_FALSE(shows_consistency(proof, head_at(from), {to, other}));
      EXPECT_FALSE(shows_consistency(proof, head_at(to), head_at(from)));
      EXPECT_FALSE(shows_consistency({}, head_at(from), head_at(to)));
      TreeProof longer = proof;
      longer.push_back(other);
      EXPECT_FALSE(shows_consistency(longer, head_at(from), head_at(to)));
      for (std::size_t i = 0; i < proof.size(); ++i) {
        TreeProof changed = proof;
        changed[i][0] = static_cast<char>(changed[i][0] ^ 1);
        EXPECT_FALSE(shows_consistency(changed, head_at(from), head_at(to)));
        changed = proof;
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
        EXPECT_FALSE(shows_consistency(changed, head_at(from), head_at(to)));
      }
    }
  EXPECT_FALSE(shows_consistency({}, {0, other}, head_at(5))) << "an empty tree has one root only";
  EXPECT_FALSE(shows_consistency({}, {5, other}, head_at(5)));
}

RC_GTEST_PROP(MerkleProperty, AnyTreeIsAsDefined, (const Entries& entries)) {
  KeptTree tree(entries);
  RC_ASSERT(tree.edge().root() == naive_root(entries));
  RC_ASSERT(TreeEdge::load(entries.size(), tree.read())->root() == tree.edge().root());
  if (entries.empty()) return;
  const auto index = *rc::gen::inRange<std::size_t>(0, entries.size());
  const TreeProof inclusion = *inclusion_proof(index, entries.size(), tree.read());
  RC_ASSERT(inclusion == naive_path(index, entries));
  RC_ASSERT(shows_inclusion(inclusion, index, leaf_hash(entries[index]), tree.edge().head()));
  const TreeHead from{index + 1, naive_root(first(entries, index + 1))};
  const TreeProof consistency = *consistency_proof(from.size, entries.size(), tree.read());
  RC_ASSERT(consistency == naive_subproof(from.size, entries, true));
  RC_ASSERT(shows_consistency(consistency, from, tree.edge().head()));
}

// A whole subtree at once leads to the same tree as its entries one by one, and tells of the same nodes.
TEST(MerkleTest, SubtreesCanBeAppendedWhole) {
  const Entries entries = some_entries(100);
  KeptTree tree(entries);
  TreeEdge edge;
  for (std::uint64_t i = 0; i < 25; ++i) {
    std::vector<TreeHash> completed;
    edge.append(*tree.read()(2, i), &completed, 2);
    for (unsigned level = 0; level < completed.size(); ++level)
      EXPECT_EQ(completed[level], *tree.read()(level + 2, i >> level));
    EXPECT_EQ(edge.root(), *root_at(edge.size(), tree.read()));
  }
  EXPECT_EQ(edge.size(), 100U);
}

// Fewer than two nodes are kept per entry, and a proof reads a few for each level.
TEST(MerkleTest, WorkIsLogarithmic) {
  KeptTree tree(some_entries(100'000));
  EXPECT_LT(tree.nodes(), 200'000U);
  int most = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    tree.reads_ = 0;
    ASSERT_TRUE(inclusion_proof(i * 97, 99'999, tree.read()).has_value());
    most = std::max(most, tree.reads_);
    tree.reads_ = 0;
    ASSERT_TRUE(consistency_proof(i * 97 + 1, 99'999, tree.read()).has_value());
    most = std::max(most, tree.reads_);
  }
  EXPECT_LE(most, 2 * 17 + 1);
}

TEST(MerkleTest, QuestionsThatHaveNoAnswer) {
  KeptTree tree(some_entries(3));
  EXPECT_EQ(inclusion_proof(3, 3, tree.read()).error().code, Errc::invalid);
  EXPECT_EQ(inclusion_proof(0, 0, tree.read()).error().code, Errc::invalid);
  EXPECT_EQ(consistency_proof(3, 2, tree.read()).error().code, Errc::invalid);
  EXPECT_EQ(inclusion_proof(0, 9, tree.read()).error().code, Errc::not_found) << "the node's error is passed on";
  EXPECT_EQ(TreeEdge::load(4, tree.read()).error().code, Errc::not_found);
  EXPECT_EQ(tree_hash_from("short").error().code, Errc::invalid);
}

// The root that some entries of the tree and a proof for them lead to, and whether both were used up.
struct Folded {
  std::optional<TreeHash> root;
  bool used_up = false;
};
AnyWanted any_of(const std::vector<std::uint64_t>& wanted) {
  return [&wanted](std::uint64_t begin, std::uint64_t end) {
    const auto first = std::lower_bound(wanted.begin(), wanted.end(), begin);
    return first != wanted.end() && *first < end;
  };
}
Folded fold(const Entries& entries, const std::vector<std::uint64_t>& wanted, const TreeProof& proof, std::uint64_t size) {
  std::size_t entry = 0, hash = 0;
  const Error none{Errc::not_found, "no more"};
  const Result<TreeHash> root = root_of_subset(
      size, any_of(wanted),
      [&]() -> Result<TreeHash> {
        if (entry == wanted.size()) return none;
        return leaf_hash(entries[wanted[entry++]]);
      },
      [&]() -> Result<TreeHash> {
        if (hash == proof.size()) return none;
        return proof[hash++];
      });
  Folded folded;
  if (root) folded.root = *root;
  folded.used_up = entry == wanted.size() && hash == proof.size();
  return folded;
}

TEST(MerkleTest, EverySubsetOfASmallTreeIsProvedAndNothingElse) {
  const Entries entries = some_entries(9);
  KeptTree tree(entries);
  for (std::uint64_t size = 1; size <= entries.size(); ++size) {
    const TreeHash root = naive_root(first(entries, size));
    for (std::uint64_t bits = 1; bits < std::uint64_t{1} << size; ++bits) {
      std::vector<std::uint64_t> wanted;
      for (std::uint64_t i = 0; i < size; ++i)
        if ((bits >> i & 1) != 0) wanted.push_back(i);
      TreeProof proof;
      const auto keep = [&](const TreeHash& hash) { return proof.push_back(hash), true; };
      ASSERT_TRUE(subset_proof(size, any_of(wanted), tree.read(), keep).has_value());
      const Folded folded = fold(entries, wanted, proof, size);
      ASSERT_TRUE(folded.root && folded.used_up);
      ASSERT_EQ(*folded.root, root);
      ASSERT_LE(proof.size(), wanted.size() * 4);
      // Another entry, another place, a hash less, a hash changed.
      Entries changed = entries;
      changed[wanted.front()] += "x";
      EXPECT_NE(*fold(changed, wanted, proof, size).root, root);
      if (proof.empty()) continue;
      TreeProof shorter(proof.begin(), proof.end() - 1), other = proof;
      other.back()[0] = static_cast<char>(other.back()[0] ^ 1);
      EXPECT_FALSE(fold(entries, wanted, shorter, size).root.has_value());
      EXPECT_NE(*fold(entries, wanted, other, size).root, root);
    }
  }
}

// A range costs two hashes a level however long it is.
TEST(MerkleTest, ARangeIsProvedWithFewHashes) {
  KeptTree tree(some_entries(10'000));
  const auto range = [](std::uint64_t begin, std::uint64_t end) { return begin < 7'777 && end > 1'234; };
  std::size_t hashes = 0;
  ASSERT_TRUE(subset_proof(9'999, range, tree.read(), [&](const TreeHash&) { return ++hashes, true; }).has_value());
  EXPECT_LE(hashes, 28U);
  EXPECT_EQ(subset_proof(9'999, range, tree.read(), [](const TreeHash&) { return false; }).error().code, Errc::io);
  const auto nothing = [](std::uint64_t, std::uint64_t) { return false; };
  EXPECT_EQ(subset_proof(9, nothing, tree.read(), [](const TreeHash&) { return true; }).error().code, Errc::invalid);
  EXPECT_EQ(subset_proof(0, range, tree.read(), [](const TreeHash&) { return true; }).error().code, Errc::invalid);
}

}  // namespace
}  // namespace ledger
