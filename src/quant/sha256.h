// SHA-256 of bytes and files, as lower-case hex. OpenSSL does the work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace statera {

std::string sha256(std::string_view bytes);
// Reads the file in pieces; Error(io|not_found) naming it.
std::string sha256_file(const std::string& path);

}  // namespace statera
