// ParquetRows: the rows of a Parquet file as Json, through Apache Arrow, whose headers are seen by parquet_rows.cpp only. Rows are decoded
// in stretches of a row group when they are asked for; columns that were not chosen are never read. For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

struct ParquetLimits {
  int64_t stretch = 8 << 20;      // bytes of rows that are decoded together, as far as the file's own figures are true
  int64_t kept = 64 << 20;        // bytes of decoded rows that are kept for later
  int64_t most = 2ll << 30;       // bytes that reading may hold at all
  int64_t rows = 100'000'000;     // of a file
};

struct ParquetColumn {
  std::string name, type;    // type in Arrow's spelling
  bool is_text = false;      // strings, or bytes, which must be UTF-8 when read
  bool is_turns = false;     // a list of structs
  bool is_pictures = false;  // paths, bytes, {bytes, path}, or a list of one of these
};

class ParquetRows {
 public:
  // Reads the footer. Errors, all naming the file: not_found, io; bad_file for what is no Parquet, is cut, damaged or claims what cannot
  // be; unsupported for encrypted files.
  explicit ParquetRows(const std::string& path, const ParquetLimits& limits = {});
  ~ParquetRows();
  ParquetRows(ParquetRows&&) noexcept;
  ParquetRows& operator=(ParquetRows&&) noexcept;

  size_t size() const;
  const std::vector<ParquetColumn>& columns() const;
  // The columns that rows have from now on, in the file's order; at first all.
  void choose(const std::vector<std::string>& names);
  // An object. null is absence, of columns and of members alike (lists keep theirs). Pictures as the datasets library stores them, {bytes, path}, become
  // one string: data: with the bytes, else the path; so do plain bytes under the name image or images. Times, decimals and the like are text. Errors:
  // bad_file naming file, row and column; unsupported (a compression); memory (more than limits.most).
  Json row(size_t i) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace statera
