#include "api/kube_nodes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ledger::api {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Type = KubeNodeEvent::Type;

TEST(KubeNodes, APageGivesItsNodesAndWhereTheNextIs) {
  const auto page = read_node_page(
      R"({"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"abc"},"items":[)"
      R"({"metadata":{"name":"web-1","uid":"u1","labels":{"a":"b"}},"spec":{},"status":{"images":[]}},)"
      R"({"metadata":{"name":"web-2","uid":"u2"}}]})");
  ASSERT_TRUE(page) << page.error().message;
  ASSERT_THAT(page->nodes, SizeIs(2));
  EXPECT_EQ(page->nodes[1].name + "/" + page->nodes[1].uid, "web-2/u2");
  EXPECT_EQ(page->version, "7");
  EXPECT_EQ(page->next, "abc");
  const auto empty =
      read_node_page(R"({"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"8"},"items":null})");
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_THAT(empty->nodes, IsEmpty());
  EXPECT_EQ(empty->next, "");
}

// From such a page nothing may follow: a node that is not in it would look deleted.
TEST(KubeNodes, APageThatIsNotWholeIsNone) {
  const auto why = [](const char* body) {
    const auto page = read_node_page(body);
    EXPECT_FALSE(page) << body;
    return page ? std::string() : page.error().message;
  };
  EXPECT_THAT(why(R"({"kind":"NodeList","metadata":{"resourceVersion":"7"},"items":[)"), HasSubstr("is not JSON"));
  EXPECT_THAT(why("[]"), HasSubstr("is not JSON"));
  EXPECT_THAT(why(R"({"kind":"Status\u001b[2J","metadata":{}})"), HasSubstr("'Status?[2J', not a list"));
  EXPECT_THAT(why(R"({"kind":"NodeList","items":[]})"), HasSubstr("no resourceVersion"));
  EXPECT_THAT(why(R"({"kind":"NodeList","metadata":{"resourceVersion":7},"items":[]})"),
              HasSubstr("no resourceVersion"));
  EXPECT_THAT(why(R"({"kind":"NodeList","metadata":{"resourceVersion":"7"}})"), HasSubstr("no items"));
  for (const char* item : {"7", "{}", R"({"metadata":{"name":"a"}})", R"({"metadata":{"name":"","uid":"u"}})"})
    EXPECT_THAT(
        why((R"({"kind":"NodeList","metadata":{"resourceVersion":"7"},"items":[)" + std::string(item) + "]}")
                .c_str()),
        HasSubstr("no name or uid"));
}

TEST(KubeNodes, EventsOfEverySort) {
  const auto event = [](const std::string& type, const std::string& object) {
    const auto read = read_node_event(R"({"type":")" + type + R"(","object":)" + object + "}");
    EXPECT_TRUE(read) << type << read.error().message;
    return read ? *read : KubeNodeEvent();
  };
  const std::string node = R"({"kind":"Node","metadata":{"name":"web-1","uid":"u1","resourceVersion":"9"}})";
  EXPECT_EQ(event("ADDED", node).type, Type::exists);
  EXPECT_EQ(event("MODIFIED", node).type, Type::exists);
  const KubeNodeEvent deleted = event("DELETED", node);
  EXPECT_EQ(deleted.type, Type::deleted);
  EXPECT_EQ(deleted.node.name + "/" + deleted.node.uid + "/" + deleted.version, "web-1/u1/9");
  const KubeNodeEvent bookmark = event("BOOKMARK", R"({"kind":"Node","metadata":{"resourceVersion":"12"}})");
  EXPECT_EQ(bookmark.type, Type::bookmark);
  EXPECT_EQ(bookmark.version, "12");
  const KubeNodeEvent ended = event("ERROR", R"({"kind":"Status","code":410,"message":"too old\n"})");
  EXPECT_EQ(ended.type, Type::ended);
  EXPECT_EQ(ended.message, "too old?");
}

TEST(KubeNodes, EventsThatCannotBeRead) {
  for (const char* line : {"", "{", "[]", "null", R"({"type":"ADDED"})", R"({"type":"ADDED","object":[]})",
                           R"({"type":"ADDED","object":{"metadata":{"name":"a","uid":"u"}}})",
                           R"({"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"1"}}})",
                           R"({"type":"BOOKMARK","object":{"metadata":{}}})",
                           R"({"type":"NEW","object":{"metadata":{"name":"a","uid":"u","resourceVersion":"1"}}})",
                           R"({"object":{"metadata":{"name":"a","uid":"u","resourceVersion":"1"}}})"})
    EXPECT_FALSE(read_node_event(line)) << line;
}

}  // namespace
}  // namespace ledger::api
