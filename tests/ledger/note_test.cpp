#include "ledger/note.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ledger {
namespace {

using ::testing::HasSubstr;

// The example of Go's golang.org/x/mod/sumdb/note: made by another implementation.
constexpr const char* kPeterKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
constexpr const char* kPeterPrivate =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
constexpr const char* kPeterNote =
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\xE2\x80\x94 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

TEST(Note, ReadsWhatAnotherImplementationSigned) {
  const auto note = parse_note(kPeterNote);
  ASSERT_TRUE(note.has_value()) << note.error().message;
  EXPECT_EQ(note->str(), kPeterNote);
  const auto key = NoteVerifier::parse(kPeterKey);
  ASSERT_TRUE(key.has_value()) << key.error().message;
  EXPECT_EQ(key->str(), kPeterKey);
  EXPECT_TRUE(check_note(*note, *key).has_value());
}

TEST(Note, SignsAsAnotherImplementationDoes) {
  const auto signer = NoteSigner::parse(Secret(kPeterPrivate));
  ASSERT_TRUE(signer.has_value()) << signer.error().message;
  EXPECT_EQ(signer->verifier().str(), kPeterKey);
  EXPECT_EQ(signer->text().reveal(), kPeterPrivate);
  SignedNote note{parse_note(kPeterNote)->text, {}};
  note.signatures.push_back(signer->sign(note.text));
  EXPECT_EQ(note.str(), kPeterNote) << "Ed25519 is deterministic";
}

TEST(Note, AChangedTextOrSignatureIsNotSigned) {
  const auto key = NoteVerifier::parse(kPeterKey);
  SignedNote note = *parse_note(kPeterNote);
  note.text[3] = '!';
  EXPECT_THAT(check_note(note, *key).error().message, HasSubstr("does not fit the text"));
  note = *parse_note(kPeterNote);
  note.signatures[0].bytes[7] = static_cast<char>(note.signatures[0].bytes[7] ^ 4);
  EXPECT_FALSE(check_note(note, *key).has_value());
  note.signatures[0].name = "Somebody";
  EXPECT_THAT(check_note(note, *key).error().message, HasSubstr("is not signed by PeterNeumann"));
}

TEST(Note, SignaturesOfStrangersAreLeftAlone) {
  const auto stranger = NoteSigner::make("example.org/stranger");
  SignedNote note = *parse_note(kPeterNote);
  note.signatures.insert(note.signatures.begin(), stranger->sign(note.text));
  EXPECT_TRUE(check_note(*parse_note(note.str()), *NoteVerifier::parse(kPeterKey)).has_value());
  EXPECT_TRUE(check_note(note, stranger->verifier()).has_value());
}

TEST(Note, AWitnessSignsTheTimeToo) {
  const auto witness = NoteSigner::make("example.org/w1", NoteSigner::Type::witness);
  ASSERT_TRUE(witness.has_value());
  EXPECT_TRUE(witness->verifier().is_witness());
  SignedNote note = *parse_note(kPeterNote);
  note.signatures.push_back(witness->sign(note.text, Time{1'679'315'147'000'000}));
  const auto key = NoteVerifier::parse(witness->verifier().str());
  ASSERT_TRUE(key.has_value());
  EXPECT_TRUE(check_note(*parse_note(note.str()), *key).has_value());
  note.signatures[1].bytes[7] = static_cast<char>(note.signatures[1].bytes[7] ^ 1);  // another second
  EXPECT_FALSE(check_note(note, *key).has_value());
}

TEST(Note, EveryKeyIsAnother) {
  const auto a = NoteSigner::make("x");
  const auto b = NoteSigner::make("x");
  EXPECT_NE(a->verifier().str(), b->verifier().str());
  EXPECT_EQ(NoteSigner::parse(a->text())->verifier().str(), a->verifier().str());
  EXPECT_FALSE(NoteSigner::make("a b").has_value());
  EXPECT_FALSE(NoteSigner::make("a+b").has_value());
  EXPECT_FALSE(NoteSigner::make("").has_value());
}

TEST(Note, WhatIsNoNote) {
  for (const char* text : {"", "text\n", "text\n\n", "text\n\nno signature\n", "text\n\n\xE2\x80\x94 name\n",
                           "text\n\n\xE2\x80\x94 name ????\n", "text\n\n\xE2\x80\x94 name x08go/Z\n\n",
                           "te\rxt\n\n\xE2\x80\x94 name x08go/ZJkuA=\n", "text\n\n\xE2\x80\x94 name x08go/ZJkuA="})
    EXPECT_FALSE(parse_note(text).has_value()) << text;
  EXPECT_FALSE(parse_note(std::string(100'000, 'x') + "\n\n\xE2\x80\x94 name x08go/ZJkuA=\n").has_value());
}

TEST(Note, WhatIsNoKey) {
  for (const char* text : {"", "PeterNeumann", "PeterNeumann+c74f20a3",
                           "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                           "PeterNeumann+c74f20a3+ARpc", "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                           "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"})
    EXPECT_FALSE(NoteVerifier::parse(text).has_value()) << text;
  EXPECT_FALSE(NoteSigner::parse(Secret(kPeterKey)).has_value());
  EXPECT_FALSE(NoteSigner::parse(Secret("PRIVATE+KEY+Peter+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"))
                   .has_value());
}

}  // namespace
}  // namespace ledger
