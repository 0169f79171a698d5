// http: see the header.
#include "image/http.h"

#include <curl/curl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "base/error.h"
#include "image/address.h"
#include "image/format.h"

namespace statera {
namespace {

struct Transfer {
  const FetchOptions* options;
  std::string body;
  std::string refused;  // the address that policy kept us from
  bool too_large = false;
};

size_t on_data(char* data, size_t size, size_t count, void* user) {
  auto* t = static_cast<Transfer*>(user);
  if (t->body.size() + size * count > static_cast<size_t>(t->options->max_bytes)) {
    t->too_large = true;
    return 0;
  }
  t->body.append(data, size * count);
  return size * count;
}

// Called with the address about to be connected to: after DNS, for every redirect and every retry.
curl_socket_t on_open_socket(void* user, curlsocktype, curl_sockaddr* address) {
  auto* t = static_cast<Transfer*>(user);
  if (!t->options->allow_private_addresses && t->options->proxy.empty() && !is_public_address(&address->addr)) {
    t->refused = address_text(&address->addr);
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void configure(CURL* curl, const std::string& url, Transfer& t) {
  const FetchOptions& o = *t.options;
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, o.max_redirects > 0 ? 1L : 0L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, static_cast<long>(o.max_redirects));
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(o.connect_timeout_s));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT, static_cast<long>(o.timeout_s));
  curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(o.max_bytes));
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(curl, CURLOPT_PROXY, o.proxy.c_str());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "statera");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &t);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &t);
}

[[noreturn]] void explain(CURLcode code, CURL* curl, const Transfer& t) {
  long status = 0, redirects = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_COUNT, &redirects);
  if (!t.refused.empty()) {
    throw Error(ErrorKind::denied, fmt::format("refused to connect to {}{}: not a public address (--allow-private-addresses)", t.refused,
                                               redirects > 0 ? " (after a redirect)" : ""));
  }
  if (t.too_large || code == CURLE_FILESIZE_EXCEEDED) {
    throw Error(ErrorKind::network, fmt::format("larger than the limit of {} bytes (max_bytes)", t.options->max_bytes));
  }
  if (code == CURLE_HTTP_RETURNED_ERROR) throw Error(ErrorKind::network, fmt::format("the server answered {}", status));
  if (code == CURLE_TOO_MANY_REDIRECTS) {
    throw Error(ErrorKind::network, fmt::format("more than {} redirects (max_redirects)", t.options->max_redirects));
  }
  throw Error(ErrorKind::network, curl_easy_strerror(code));
}

}  // namespace

std::string http_get(const std::string& url, const FetchOptions& options) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) throw Error(ErrorKind::network, "libcurl does not start");
  Transfer transfer{&options, {}, {}, false};
  configure(curl.get(), url, transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) explain(code, curl.get(), transfer);
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status < 200 || status > 299) throw Error(ErrorKind::network, fmt::format("the server answered {}", status));
  return std::move(transfer.body);
}

}  // namespace statera
