// Arrow behind its facade: the footer, stretches of rows, values to Json. Compiled without the precompiled header (2 to 3 s).
#include "data/parquet_rows.h"

#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/utf8.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "data/base64.h"

namespace statera {
namespace {
using arrow::Type;

constexpr int64_t kMostStretchRows = 4096;

[[noreturn]] void fail(const std::string& where, const std::string& what) { throw Error(ErrorKind::bad_file, where + ": " + what); }

// One line of what the library says.
std::string first_line(std::string text) {
  text.resize(std::min(text.find('\n'), text.size()));
  if (text.size() > 200) text.resize(complete_utf8_prefix(std::string_view(text).substr(0, 200)));
  return text;
}

void ok(const arrow::Status& status, const std::string& where) {
  if (status.ok()) return;
  const std::string says = first_line(status.message());
  if (status.IsOutOfMemory()) throw Error(ErrorKind::memory, where + ": reading it needs too much memory at a time (" + says + ")");
  if (status.IsNotImplemented()) throw Error(ErrorKind::unsupported, where + ": Parquet: " + says);
  fail(where, "not readable as Parquet: " + says);
}

template <class T>
T ok(arrow::Result<T> result, const std::string& where) {
  ok(result.status(), where);
  return std::move(result).ValueUnsafe();
}

// Parts of the library report by exceptions.
template <class F>
auto guarded(const std::string& where, F&& f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const Bug&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::memory, where + ": reading it needs too much memory at a time");
  } catch (const std::exception& e) {
    fail(where, "not readable as Parquet: " + first_line(e.what()));
  }
}

// Magic words in front and behind (Parquet format, "File Format"); says more than the library does.
void check_frame(const MappedFile& file, const std::string& path) {
  const auto word = [&](uint64_t at) { return std::string_view(reinterpret_cast<const char*>(file.data()) + at, 4); };
  if (file.size() < 4 || (word(0) != "PAR1" && word(0) != "PARE")) fail(path, "is no Parquet file (it does not begin with PAR1)");
  if (file.size() < 12 || (word(file.size() - 4) != "PAR1" && word(file.size() - 4) != "PARE"))
    fail(path, "ends in the middle (a Parquet file ends with PAR1)");
  if (word(file.size() - 4) == "PARE") throw Error(ErrorKind::unsupported, path + ": is encrypted Parquet");
  uint32_t footer = 0;
  std::memcpy(&footer, file.data() + file.size() - 8, 4);
  if (footer > file.size() - 12) fail(path, "claims a footer of " + std::to_string(footer) + " bytes in a file of " + std::to_string(file.size()));
}

bool is_bytes(const arrow::DataType& t) {
  return t.id() == Type::BINARY || t.id() == Type::LARGE_BINARY || t.id() == Type::BINARY_VIEW || t.id() == Type::FIXED_SIZE_BINARY;
}
bool is_text(const arrow::DataType& t) {
  if (t.id() == Type::DICTIONARY) return is_text(*static_cast<const arrow::DictionaryType&>(t).value_type());
  if (t.id() == Type::EXTENSION) return is_text(*static_cast<const arrow::ExtensionType&>(t).storage_type());
  return t.id() == Type::STRING || t.id() == Type::LARGE_STRING || t.id() == Type::STRING_VIEW || is_bytes(t);
}
bool is_list(const arrow::DataType& t) {
  return t.id() == Type::LIST || t.id() == Type::LARGE_LIST || t.id() == Type::FIXED_SIZE_LIST;
}
// {bytes, path}, as the datasets library stores a picture.
bool is_picture(const arrow::DataType& t) {
  if (t.id() != Type::STRUCT || t.num_fields() != 2) return false;
  const auto& s = static_cast<const arrow::StructType&>(t);
  const auto bytes = s.GetFieldByName("bytes"), path = s.GetFieldByName("path");
  return bytes && path && is_bytes(*bytes->type()) && is_text(*path->type());
}

ParquetColumn column_of(const arrow::Field& field) {
  const arrow::DataType& t = *field.type();
  const arrow::DataType& element = is_list(t) ? *t.field(0)->type() : t;
  ParquetColumn out{field.name(), first_line(t.ToString())};
  out.is_text = is_text(t);
  out.is_turns = is_list(t) && element.id() == Type::STRUCT;
  out.is_pictures = is_text(element) || is_picture(element);
  return out;
}

void add_leaves(const parquet::arrow::SchemaField& field, std::vector<int>& leaves) {
  if (field.is_leaf()) leaves.push_back(field.column_index);
  for (const auto& child : field.children) add_leaves(child, leaves);
}

std::string data_source(std::string_view bytes) { return "data:image;base64," + encode_base64(bytes); }

Json value_of(const arrow::Array& a, int64_t i, std::string_view key, const std::string& where);

template <class A>
Json text_of(const arrow::Array& a, int64_t i, std::string_view key, const std::string& where) {
  const auto view = static_cast<const A&>(a).GetView(i);
  const std::string_view text(view.data(), view.size());
  if (is_bytes(*a.type()) && (key == "image" || key == "images")) return data_source(text);
  if (!arrow::util::ValidateUTF8(text)) fail(where, std::string(key) + ": holds bytes that are no UTF-8");
  return text;
}

template <class A>
Json list_of(const arrow::Array& a, int64_t i, std::string_view key, const std::string& where) {
  const auto& list = static_cast<const A&>(a);
  Json::Array out;
  const int64_t begin = list.value_offset(i), count = list.value_length(i);
  out.reserve(static_cast<size_t>(count));
  for (int64_t j = begin; j < begin + count; ++j) out.push_back(value_of(*list.values(), j, key, where));
  return out;
}

Json struct_of(const arrow::Array& a, int64_t i, const std::string& where) {
  const auto& s = static_cast<const arrow::StructArray&>(a);
  if (is_picture(*a.type())) {
    const auto bytes = s.GetFieldByName("bytes"), path = s.GetFieldByName("path");
    // "image" makes bytes a data: source.
    return bytes->IsNull(i) ? value_of(*path, i, "path", where) : value_of(*bytes, i, "image", where);
  }
  Json out = Json::object();
  for (int f = 0; f < s.num_fields(); ++f) {
    const std::string& name = a.type()->field(f)->name();
    Json value = value_of(*s.field(f), i, name, where);
    if (!value.is_null()) out.set(name, std::move(value));
  }
  return out;
}

template <class A>
Json number_of(const arrow::Array& a, int64_t i) {
  const auto v = static_cast<const A&>(a).Value(i);
  if constexpr (std::is_floating_point_v<decltype(v)>) return Json(static_cast<double>(v));
  return Json(static_cast<int64_t>(v));
}

Json value_of(const arrow::Array& a, int64_t i, std::string_view key, const std::string& where) {
  if (a.IsNull(i)) return {};
  switch (a.type_id()) {
    case Type::BOOL: return Json(static_cast<const arrow::BooleanArray&>(a).Value(i));
    case Type::INT8: return number_of<arrow::Int8Array>(a, i);
    case Type::INT16: return number_of<arrow::Int16Array>(a, i);
    case Type::INT32: return number_of<arrow::Int32Array>(a, i);
    case Type::INT64: return number_of<arrow::Int64Array>(a, i);
    case Type::UINT8: return number_of<arrow::UInt8Array>(a, i);
    case Type::UINT16: return number_of<arrow::UInt16Array>(a, i);
    case Type::UINT32: return number_of<arrow::UInt32Array>(a, i);
    case Type::UINT64: return number_of<arrow::UInt64Array>(a, i);
    case Type::FLOAT: return number_of<arrow::FloatArray>(a, i);
    case Type::DOUBLE: return number_of<arrow::DoubleArray>(a, i);
    case Type::STRING: return text_of<arrow::StringArray>(a, i, key, where);
    case Type::LARGE_STRING: return text_of<arrow::LargeStringArray>(a, i, key, where);
    case Type::STRING_VIEW: return text_of<arrow::StringViewArray>(a, i, key, where);
    case Type::BINARY: return text_of<arrow::BinaryArray>(a, i, key, where);
    case Type::LARGE_BINARY: return text_of<arrow::LargeBinaryArray>(a, i, key, where);
    case Type::BINARY_VIEW: return text_of<arrow::BinaryViewArray>(a, i, key, where);
    case Type::FIXED_SIZE_BINARY: return text_of<arrow::FixedSizeBinaryArray>(a, i, key, where);
    case Type::LIST: return list_of<arrow::ListArray>(a, i, key, where);
    case Type::LARGE_LIST: return list_of<arrow::LargeListArray>(a, i, key, where);
    case Type::FIXED_SIZE_LIST: return list_of<arrow::FixedSizeListArray>(a, i, key, where);
    case Type::STRUCT: return struct_of(a, i, where);
    case Type::DICTIONARY: {
      const auto& d = static_cast<const arrow::DictionaryArray&>(a);
      const int64_t at = d.GetValueIndex(i);
      if (at < 0 || at >= d.dictionary()->length()) fail(where, std::string(key) + ": points outside its dictionary");
      return value_of(*d.dictionary(), at, key, where);
    }
    case Type::EXTENSION: return value_of(*static_cast<const arrow::ExtensionArray&>(a).storage(), i, key, where);
    default: return first_line(ok(a.GetScalar(i), where)->ToString());
  }
}

}  // namespace

struct ParquetRows::Impl {
  struct Stretch {
    size_t first = 0;
    int64_t bytes = 0;
    std::shared_ptr<arrow::RecordBatch> rows;
  };

  Impl(const std::string& path, const ParquetLimits& given) : path(path), limits(given), pool(arrow::system_memory_pool(), given.most) {
    const MappedFile file(path);
    check_frame(file, path);
    guarded(path, [&] { open(file.size()); });
  }

  void open(uint64_t bytes) {
    arrow::util::InitializeUTF8();
    parquet::ReaderProperties how(&pool);
    how.enable_buffered_stream();  // else whole column chunks are read
    how.set_page_checksum_verification(true);
    parquet::ArrowReaderProperties arrow_how;
    arrow_how.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    ok(builder.Open(ok(arrow::io::ReadableFile::Open(path, &pool), path), how), path);
    ok(builder.memory_pool(&pool)->properties(arrow_how)->Build(&reader), path);
    const auto meta = reader->parquet_reader()->metadata();
    first.push_back(0);
    for (int g = 0; g < meta->num_row_groups(); ++g) {
      const int64_t rows = meta->RowGroup(g)->num_rows();
      if (rows < 0 || rows > limits.rows - static_cast<int64_t>(first.back()))
        fail(path, "row group " + std::to_string(g) + " claims " + std::to_string(rows) + " rows; a file may have " + std::to_string(limits.rows));
      first.push_back(first.back() + static_cast<size_t>(rows));
    }
    // Runs of one value take next to nothing, so a small file can hold many rows, but nothing worth reading.
    if (first.back() > 1'000'000 && first.back() / 500 > bytes)
      fail(path, "claims " + std::to_string(first.back()) + " rows in " + std::to_string(bytes) + " bytes");
    if (static_cast<uint64_t>(meta->num_rows()) != first.back())
      fail(path, "claims " + std::to_string(meta->num_rows()) + " rows, but its row groups " + std::to_string(first.back()));
    for (const auto& field : reader->manifest().schema_fields) {
      columns.push_back(column_of(*field.field));
      add_leaves(field, leaves);
    }
  }

  void choose(const std::vector<std::string>& names) {
    leaves.clear();
    for (const auto& field : reader->manifest().schema_fields) {
      if (std::count(names.begin(), names.end(), field.field->name())) add_leaves(field, leaves);
    }
    kept.clear();
    kept_bytes = 0;
    stream.reset();
  }

  // Row i and the stretch that holds it, decoded unless it is kept.
  const Stretch& stretch_of(size_t i, const std::string& where) {
    for (const Stretch& s : kept) {
      if (i >= s.first && i - s.first < static_cast<size_t>(s.rows->num_rows())) return s;
    }
    const auto group = static_cast<int>(std::upper_bound(first.begin(), first.end(), i) - first.begin()) - 1;
    if (!stream || group != open_group || i < next) start(group, where);
    for (;;) {
      std::shared_ptr<arrow::RecordBatch> rows;
      auto reading = std::move(stream);  // a fault leaves none
      ok(reading->ReadNext(&rows), where);
      if (!rows) fail(where, "row group " + std::to_string(group) + " has fewer rows than the file claims");
      const size_t at = next;
      next += static_cast<size_t>(rows->num_rows());
      stream = std::move(reading);
      keep({at, arrow::util::TotalBufferSize(*rows), rows});
      if (i < next) return kept.back();
    }
  }

  void start(int group, const std::string& where) {
    const auto meta = reader->parquet_reader()->metadata()->RowGroup(group);
    int64_t bytes = 0;
    for (int leaf : leaves) bytes += std::max<int64_t>(0, std::min(meta->ColumnChunk(leaf)->total_uncompressed_size(), limits.most));
    const int64_t each = std::max<int64_t>(1, bytes / std::max<int64_t>(1, meta->num_rows()));
    reader->set_batch_size(std::clamp<int64_t>(limits.stretch / each, 1, kMostStretchRows));
    stream = ok(reader->GetRecordBatchReader({group}, leaves), where);
    open_group = group;
    next = first[static_cast<size_t>(group)];
  }

  void keep(Stretch s) {
    std::erase_if(kept, [&](const Stretch& old) {
      const bool again = old.first == s.first;
      if (again) kept_bytes -= old.bytes;
      return again;
    });
    kept_bytes += s.bytes;
    kept.push_back(std::move(s));
    for (; kept_bytes > limits.kept && kept.size() > 1; kept.pop_front()) kept_bytes -= kept.front().bytes;
  }

  const std::string path;
  const ParquetLimits limits;
  arrow::CappedMemoryPool pool;  // outlives what is allocated from it
  std::unique_ptr<parquet::arrow::FileReader> reader;
  std::vector<ParquetColumn> columns;
  std::vector<int> leaves;    // that are read, by their number in the file
  std::vector<size_t> first;  // row of each group, and behind the last
  std::unique_ptr<arrow::RecordBatchReader> stream;  // of open_group, before row `next`
  int open_group = -1;
  size_t next = 0;
  std::deque<Stretch> kept;
  int64_t kept_bytes = 0;
};

ParquetRows::ParquetRows(const std::string& path, const ParquetLimits& limits) : impl_(std::make_unique<Impl>(path, limits)) {}
ParquetRows::~ParquetRows() = default;
ParquetRows::ParquetRows(ParquetRows&&) noexcept = default;
ParquetRows& ParquetRows::operator=(ParquetRows&&) noexcept = default;

size_t ParquetRows::size() const { return impl_->first.back(); }
const std::vector<ParquetColumn>& ParquetRows::columns() const { return impl_->columns; }
void ParquetRows::choose(const std::vector<std::string>& names) { impl_->choose(names); }

Json ParquetRows::row(size_t i) const {
  check(i < size(), "a row that the file has");
  const std::string where = impl_->path + ": row " + std::to_string(i);
  return guarded(where, [&] {
    const Impl::Stretch& s = impl_->stretch_of(i, where);
    Json out = Json::object();
    for (int c = 0; c < s.rows->num_columns(); ++c) {
      Json value = value_of(*s.rows->column(c), static_cast<int64_t>(i - s.first), s.rows->column_name(c), where);
      if (!value.is_null()) out.set(s.rows->column_name(c), std::move(value));
    }
    return out;
  });
}

}  // namespace statera
