// Parquet files: the same items as the .jsonl of the same content, in any order and in small stretches; cut, damaged and lying ones.
#include "data/parquet_rows.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "base/error.h"
#include "base/rng.h"
#include "ckpt/test_files.h"
#include "quant/calib/items.h"

namespace statera {
namespace {

std::string fixture(const std::string& name) { return std::string(STATERA_SOURCE_DIR) + "/tests/golden/parquet/" + name; }

std::string bytes_of(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

// Of the file with these bytes, read to its end.
std::string fault_of(const std::string& bytes, const ItemReading& how = {}) {
  TempDir dir;
  write_text(dir / "x.parquet", bytes);
  const std::string says = message_of([&] {
    const ItemFile file(dir / "x.parquet", how);
    for (size_t i = 0; i < file.size(); ++i) file.item(i);
  });
  EXPECT_EQ(says.find('\n'), says.npos) << says;
  EXPECT_TRUE(says == "no error" || says.find(": " + (dir / "x.parquet") + ": ") != says.npos) << says;
  return says;
}

TEST(ParquetRows, ItemsAreThoseOfTheJsonLinesOfTheSameContent) {
  for (const char* name : {"texts", "messages", "items", "llava", "pairs"}) {
    const ItemReading how{.field = std::string(name) == "texts" ? "body" : ""};
    const ItemFile table(fixture(std::string(name) + ".parquet"), how), lines(fixture(std::string(name) + ".jsonl"));
    ASSERT_EQ(table.size(), lines.size()) << name;
    for (size_t i = 0; i < table.size(); ++i) {
      const auto a = read_item(table.item(i), how, "a"), b = read_item(lines.item(i), how, "b");
      ASSERT_EQ(a.index(), b.index()) << name;
      if (const auto* text = std::get_if<std::string>(&a)) {
        EXPECT_EQ(*text, std::get<std::string>(b));
      } else {
        EXPECT_EQ(std::get<Conversation>(a).messages(), std::get<Conversation>(b).messages()) << name << " " << i;
      }
    }
    EXPECT_TRUE(table.where(2).ends_with(std::string(name) + ".parquet: row 2"));
  }
}

TEST(ParquetRows, RowsHaveTheSameValuesInAnyOrderAndInStretchesOfAnySize) {
  ParquetRows whole(fixture("texts.parquet"));
  ASSERT_EQ(whole.size(), 25u);
  const ItemFile lines(fixture("texts.jsonl"));
  // Stretches of one row, of which none is kept for later; and rows that are all kept.
  for (const ParquetLimits& limits : {ParquetLimits{.stretch = 1, .kept = 1}, ParquetLimits{.stretch = 300, .kept = 1000}, ParquetLimits{}}) {
    ParquetRows rows(fixture("texts.parquet"), limits);
    rows.choose({"number", "body", "kind"});
    for (size_t k = 0; k < 60; ++k) {
      const size_t i = k * 11 % 25;
      EXPECT_EQ(rows.row(i), lines.item(i)) << i;
    }
  }
  EXPECT_EQ(whole.row(3).at("when").as_string(), "1970-01-01 00:00:03.000000");
}

TEST(ParquetRows, OnlyChosenColumnsAreRead) {
  ParquetRows rows(fixture("texts.parquet"));
  rows.choose({"kind"});
  EXPECT_EQ(rows.row(4).as_object().size(), 1u);
  EXPECT_EQ(rows.row(4).at("kind").as_string(), "even");
  std::string bytes = bytes_of(fixture("texts.parquet"));
  bytes.replace(4, 30, std::string(30, '\xff'));  // the first page of the first column
  TempDir dir;
  write_text(dir / "x.parquet", bytes);
  ParquetRows damaged(dir / "x.parquet");
  damaged.choose({"kind"});
  EXPECT_EQ(damaged.row(4).at("kind").as_string(), "even");
  damaged.choose({"body"});
  EXPECT_EQ(message_of([&] { damaged.row(4); }).find("bad_file: " + (dir / "x.parquet") + ": row 4: not readable as Parquet"), 0u);
}

TEST(ParquetRows, ColumnsSayWhatTheyCanBe) {
  const ParquetRows texts(fixture("texts.parquet")), llava(fixture("llava.parquet"));
  ASSERT_EQ(texts.columns().size(), 4u);
  EXPECT_TRUE(texts.columns()[0].is_text);
  EXPECT_TRUE(texts.columns()[1].is_text);
  EXPECT_FALSE(texts.columns()[2].is_text);
  ASSERT_EQ(llava.columns().size(), 3u);
  EXPECT_TRUE(llava.columns()[1].is_pictures);
  EXPECT_FALSE(llava.columns()[1].is_turns);
  EXPECT_TRUE(llava.columns()[2].is_turns);
  EXPECT_FALSE(llava.columns()[2].is_pictures);
}

TEST(ParquetRows, PicturesBecomeDataSourcesOrPaths) {
  ParquetRows rows(fixture("llava.parquet"));
  EXPECT_EQ(rows.row(0).at("image").as_string().find("data:image;base64,iVBORw0KGgo"), 0u);
  EXPECT_FALSE(rows.row(1).has("image"));
  EXPECT_TRUE(rows.row(2).at("image").as_string().ends_with("shapes_b.png"));
}

TEST(ParquetRows, WrongColumnsAreNamedBeforeAnyRowIsRead) {
  const std::string texts = fixture("texts.parquet");
  EXPECT_EQ(message_of([&] { ItemFile{texts}; }),
            "bad_file: " + texts + ": neither text, messages nor conversations (it has body, kind, number, when; name the text's field as PATH:FIELD)");
  EXPECT_EQ(message_of([&] { ItemFile(texts, ItemReading{"bodi"}); }),
            "bad_file: " + texts + ": has no column bodi; did you mean \"body\"? (it has body, kind, number, when)");
  EXPECT_EQ(message_of([&] { ItemFile(texts, ItemReading{"number"}); }), "bad_file: " + texts + ": column number is int64, not text");
  // A column of times under the name of text.
  std::string times = bytes_of(texts);
  for (size_t at = 0; (at = times.find("when", at)) != times.npos;) times.replace(at, 4, "text");
  EXPECT_NE(fault_of(times).find("column text is timestamp[us], not text"), std::string::npos);
  TempDir dir;
  EXPECT_EQ(message_of([&] { ItemFile(dir / "none.parquet"); }).find("not_found: " + (dir / "none.parquet")), 0u);
  EXPECT_NE(message_of([&] { ItemFile(dir / "x.parquet.zst"); }).find("packed inside"), std::string::npos);
}

TEST(ParquetRows, CutFilesSaySo) {
  const std::string whole = bytes_of(fixture("llava.parquet"));
  EXPECT_EQ(fault_of(whole), "no error");
  for (size_t length = 0; length < whole.size(); length += 1 + length / 40) {
    const std::string says = fault_of(whole.substr(0, length));
    EXPECT_NE(says.find(length < 4 ? "is no Parquet file" : "ends in the middle"), says.npos) << length << ": " << says;
  }
  // Cut at the front: the footer is whole, the rows are not where it says.
  EXPECT_EQ(fault_of("PAR1" + whole.substr(2000)).find("bad_file: "), 0u);
  EXPECT_NE(fault_of("PAR1" + whole.substr(whole.size() - 100)).find("claims a footer of"), std::string::npos);
  EXPECT_NE(fault_of("{\"text\": \"x\"}\n").find("is no Parquet file"), std::string::npos);
  EXPECT_EQ(fault_of("PAR1" + std::string(20, '\0') + "PARE").find("unsupported: "), 0u);
}

TEST(ParquetRows, FilesThatLieAreRefused) {
  const auto says = [](const char* name) { return fault_of(bytes_of(fixture(name)), {"text"}); };
  EXPECT_NE(says("lying_count.bin").find("claims 5 rows, but its row groups 3"), std::string::npos);
  EXPECT_NE(says("lying_rows.bin").find("row group 0 claims 1000000000000000 rows"), std::string::npos);
  EXPECT_EQ(says("lying_columns.bin").find("bad_file: "), 0u);
  EXPECT_EQ(says("lying_tree.bin").find("bad_file: "), 0u);
}

TEST(ParquetRows, MoreMemoryThanTheLimitIsAnError) {
  ParquetRows rows(fixture("items.parquet"), {.most = 6000});
  EXPECT_EQ(message_of([&] { rows.row(0); }).find("memory: " + fixture("items.parquet") + ": row 0: "), 0u);
}

TEST(ParquetRows, DamageAnywhereIsAnErrorOrOtherContentButNoCrash) {
  for (const char* name : {"texts", "messages", "items", "llava", "pairs"}) {
    const std::string whole = bytes_of(fixture(std::string(name) + ".parquet"));
    Rng rng(7, hash_name(name));
    size_t faults = 0;
    for (int k = 0; k < 150; ++k) {
      std::string bytes = whole;
      // Half of the damage to the footer, where the structure is.
      const size_t from = k % 2 == 0 ? 0 : whole.size() / 2;
      for (int n = 0; n < 1 + k % 4; ++n) bytes[from + rng.next() % (whole.size() - from)] = static_cast<char>(rng.next());
      faults += fault_of(bytes, {std::string(name) == "texts" ? "body" : ""}) != "no error";
    }
    EXPECT_GT(faults, 20u) << name;
  }
}

}  // namespace
}  // namespace statera
