// What a strict XML parser (expat) sees in a document: a page that it reads without a complaint holds nothing that
// was meant as text and became an element, an attribute or a control character.
#pragma once

#include <expat.h>

#include <map>
#include <string>
#include <vector>

namespace ledger::test {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;  // its own, without that of elements within
};

struct XmlDocument {
  std::string error;                 // empty: well-formed
  std::vector<XmlElement> elements;  // in the order of their beginnings
  std::string text;                  // all of it

  const XmlElement* with_id(const std::string& id) const {
    for (const XmlElement& element : elements)
      if (const auto found = element.attributes.find("id");
          found != element.attributes.end() && found->second == id)
        return &element;
    return nullptr;
  }
  std::vector<const XmlElement*> named(const std::string& name) const {
    std::vector<const XmlElement*> found;
    for (const XmlElement& element : elements)
      if (element.name == name) found.push_back(&element);
    return found;
  }
};

inline XmlDocument parse_xml(const std::string& bytes) {
  struct Reader {
    XmlDocument document;
    std::vector<std::size_t> open;
  } reader;
  XML_Parser parser = XML_ParserCreate("UTF-8");
  XML_SetUserData(parser, &reader);
  XML_SetElementHandler(
      parser,
      [](void* data, const char* name, const char** attributes) {
        auto& self = *static_cast<Reader*>(data);
        XmlElement element;
        element.name = name;
        for (; *attributes != nullptr; attributes += 2) element.attributes[attributes[0]] = attributes[1];
        self.open.push_back(self.document.elements.size());
        self.document.elements.push_back(std::move(element));
      },
      [](void* data, const char*) { static_cast<Reader*>(data)->open.pop_back(); });
  XML_SetCharacterDataHandler(parser, [](void* data, const char* text, int size) {
    auto& self = *static_cast<Reader*>(data);
    const std::string piece(text, static_cast<std::size_t>(size));
    self.document.text += piece;
    if (!self.open.empty()) self.document.elements[self.open.back()].text += piece;
  });
  if (XML_Parse(parser, bytes.data(), static_cast<int>(bytes.size()), XML_TRUE) == XML_STATUS_ERROR)
    reader.document.error = std::string(XML_ErrorString(XML_GetErrorCode(parser))) + " in line " +
                            std::to_string(XML_GetCurrentLineNumber(parser));
  XML_ParserFree(parser);
  return std::move(reader.document);
}

}  // namespace ledger::test
