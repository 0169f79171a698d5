// fetch: the bytes behind a media source of a message: a path, file://, http(s)://, or data:...;base64,. Policy (URLs allowed or
// not, size, time, redirects, addresses) is in FetchOptions; decoding is elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace statera {

struct FetchOptions {
  bool allow_urls = false;               // http(s) at all; a URL typed on the command line sets it
  bool allow_files = true;               // paths and file://
  bool allow_private_addresses = false;  // loopback, private, link-local, metadata
  std::string base_dir;                  // where relative paths of a message file start; empty: the working folder
  int64_t connect_timeout_s = 10;
  int64_t timeout_s = 60;                // whole transfer
  int64_t max_redirects = 5;
  int64_t max_bytes = 256 << 20;         // of one source, whatever its kind
  std::string proxy;                     // empty: none, not even from the environment (addresses could not be checked behind one)

  template <class V>
  void fields(V& v) {
    v("allow_urls", allow_urls, "fetch http and https URLs found in message files");
    v("allow_files", allow_files, "read paths and file:// sources");
    v("allow_private_addresses", allow_private_addresses, "let URLs reach loopback, private and link-local addresses");
    v("base_dir", base_dir, "folder that relative paths start from");
    v("connect_timeout_s", connect_timeout_s, "seconds to connect");
    v("timeout_s", timeout_s, "seconds for one whole transfer");
    v("max_redirects", max_redirects, "redirects followed");
    v("max_bytes", max_bytes, "largest media file or download, bytes");
    v("proxy", proxy, "HTTP proxy; addresses are not checked behind it");
  }
};

bool is_url(std::string_view source);       // http:// or https://, lower case only, as in qwen-vl-utils
bool is_data_uri(std::string_view source);  // data:
// A short form for messages: paths whole, data URIs and long URLs cut.
std::string source_name(std::string_view source);
// The path a source means: base_dir applied, file:// removed (not URL-decoded). Error(denied) unless allow_files.
std::string local_path(std::string_view source, const FetchOptions& options);

// The bytes of a source. Errors (naming it): denied by policy (the flag is named), network, not_found, bad_file (data URI without
// base64, bad base64, a folder, larger than max_bytes).
std::string fetch(std::string_view source, const FetchOptions& options);

// Standard alphabet, white space skipped, padding optional at the end. Error(bad_file) for anything else.
std::string decode_base64(std::string_view text);

}  // namespace statera
