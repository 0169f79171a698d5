// EmbeddedFile: a file inside the program, as a row of the tables that cmake/embed.cmake generates.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace statera {

struct EmbeddedFile {
  const char* name;  // null: the row behind the last
  const unsigned char* data;
  unsigned long size;
};

// The bytes of the file of that name in a table; an unknown name is a Bug.
inline std::string_view embedded_file(const EmbeddedFile* table, std::string_view name) {
  for (const EmbeddedFile* f = table; f->name; ++f) {
    if (name == f->name) return {reinterpret_cast<const char*>(f->data), f->size};
  }
  throw Bug("no bundled file " + std::string(name));
}

}  // namespace statera
