// Sources, base64, the address policy, and fetching from a small server on the loopback interface.
#include "image/fetch.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "image/address.h"

namespace statera {
namespace {

const std::string kFolder = std::string(STATERA_SOURCE_DIR) + "/tests/golden/media";

template <class F>
Error refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::usage, "");
}

// Answers each request on 127.0.0.1 with answer(path), one connection at a time; ends with its owner.
class Server {
 public:
  explicit Server(std::function<std::string(const std::string&)> answer) : answer_(std::move(answer)) {
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bool ok = bind(socket_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(socket_, 8) == 0 &&
              getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0;
    check(ok, "test server");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    stop_ = true;
    thread_.join();
    close(socket_);
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  int requests() const { return requests_; }

 private:
  void run() {
    while (!stop_) {
      pollfd ready{socket_, POLLIN, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      const int client = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      timeval limit{2, 0};
      setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      std::string request;
      char buffer[4096];
      while (request.find("\r\n\r\n") == std::string::npos && request.size() < 65536) {
        const ssize_t n = recv(client, buffer, sizeof buffer, 0);
        if (n <= 0) break;
        request.append(buffer, static_cast<size_t>(n));
      }
      ++requests_;
      const size_t from = request.find(' '), to = request.find(' ', from + 1);
      if (from != std::string::npos && to != std::string::npos) {
        const std::string text = answer_(request.substr(from + 1, to - from - 1));
        size_t sent = 0;
        while (sent < text.size()) {
          const ssize_t n = send(client, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
          if (n <= 0) break;
          sent += static_cast<size_t>(n);
        }
      }
      close(client);
    }
  }

  std::function<std::string(const std::string&)> answer_;
  int socket_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::thread thread_;
};

std::string ok(const std::string& body) { return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body; }
std::string redirect(const std::string& to) { return "HTTP/1.1 302 Found\r\nLocation: " + to + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"; }

FetchOptions open_options() {
  FetchOptions o;
  o.allow_urls = o.allow_private_addresses = true;
  o.timeout_s = 10;
  return o;
}

TEST(Fetch, GetsABodyAndFollowsRedirects) {
  Server server([](const std::string& path) { return path == "/a" ? ok("picture") : redirect("/a"); });
  EXPECT_EQ(fetch(server.url("/a"), open_options()), "picture");
  EXPECT_EQ(fetch(server.url("/b"), open_options()), "picture");
}

TEST(Fetch, UrlsNeedTheFlagAndNothingIsContactedWithoutIt) {
  Server server([](const std::string&) { return ok("x"); });
  FetchOptions o = open_options();
  o.allow_urls = false;
  const Error e = refusal([&] { fetch(server.url("/"), o); });
  EXPECT_EQ(e.kind(), ErrorKind::denied);
  EXPECT_NE(e.message().find("--allow-urls"), std::string::npos);
  EXPECT_EQ(server.requests(), 0);
}

TEST(Fetch, PrivateAddressesAreRefusedBeforeConnectingUnderAnyName) {
  Server server([](const std::string&) { return ok("secret"); });
  FetchOptions o = open_options();
  o.allow_private_addresses = false;
  std::string by_name = server.url("/");
  by_name.replace(7, 9, "localhost");
  std::string by_number = server.url("/");
  by_number.replace(7, 9, "2130706433");
  for (const std::string& url : {server.url("/"), by_name, by_number, std::string("http://[::1]:1/"), std::string("http://169.254.169.254/latest"), std::string("http://10.0.0.1/"),
                                 std::string("http://[::ffff:127.0.0.1]:1/")}) {
    const Error e = refusal([&] { fetch(url, o); });
    EXPECT_EQ(e.kind(), ErrorKind::denied) << e.message();
    EXPECT_NE(e.message().find("--allow-private-addresses"), std::string::npos) << e.message();
  }
  EXPECT_EQ(server.requests(), 0);
}

TEST(Fetch, LimitsOnSizeRedirectsAndTime) {
  Server server([](const std::string& path) -> std::string {
    if (path == "/big") return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + std::string(200000, 'x');
    if (path == "/loop") return redirect("/loop");
    if (path == "/slow") {
      std::this_thread::sleep_for(std::chrono::milliseconds(1500));
      return ok("late");
    }
    if (path == "/file") return redirect("file:///etc/hostname");
    return "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
  });
  FetchOptions o = open_options();
  o.max_bytes = 100000;
  o.max_redirects = 3;
  o.timeout_s = 1;
  EXPECT_NE(refusal([&] { fetch(server.url("/big"), o); }).message().find("max_bytes"), std::string::npos);
  const int before = server.requests();
  EXPECT_NE(refusal([&] { fetch(server.url("/loop"), o); }).message().find("more than 3 redirects"), std::string::npos);
  EXPECT_EQ(server.requests() - before, 4);
  EXPECT_NE(refusal([&] { fetch(server.url("/none"), o); }).message().find("404"), std::string::npos);
  EXPECT_EQ(refusal([&] { fetch(server.url("/file"), o); }).kind(), ErrorKind::network);
  EXPECT_EQ(refusal([&] { fetch(server.url("/slow"), o); }).kind(), ErrorKind::network);
}

TEST(Fetch, DataUrisAndBadOnes) {
  EXPECT_EQ(fetch("data:image/png;base64,aGVsbG8=", {}), "hello");
  EXPECT_EQ(fetch("data:image;base64,aGVs\nbG8", {}), "hello");
  for (const char* bad : {"data:image/png,hello", "data:image/png;base64,a*b=", "data:image;base64,aGVsbG8=x", "data:image;base64,aGVsb"}) {
    const Error e = refusal([&] { fetch(bad, {}); });
    EXPECT_EQ(e.kind(), ErrorKind::bad_file) << e.message();
    EXPECT_TRUE(e.message().starts_with("data:image")) << e.message();
  }
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("/+8="), "\xFF\xEF");
}

TEST(Fetch, PathsStartFromTheBaseFolder) {
  FetchOptions o;
  o.base_dir = kFolder;
  const std::string whole = read_file(kFolder + "/rgb.png");
  EXPECT_EQ(fetch("rgb.png", o), whole);
  EXPECT_EQ(fetch("file://rgb.png", o), whole);
  EXPECT_EQ(fetch(kFolder + "/rgb.png", o), whole);
  EXPECT_EQ(fetch("file://" + kFolder + "/rgb.png", o), whole);
  EXPECT_EQ(refusal([&] { fetch("HTTP://example.org/a.png", o); }).kind(), ErrorKind::not_found);
  EXPECT_EQ(refusal([&] { fetch("missing.png", o); }).kind(), ErrorKind::not_found);
  EXPECT_EQ(refusal([&] { fetch("", o); }).kind(), ErrorKind::not_found);
  EXPECT_NE(refusal([&] { fetch(kFolder, o); }).message().find("is a folder"), std::string::npos);
  o.allow_files = false;
  EXPECT_EQ(refusal([&] { fetch("rgb.png", o); }).kind(), ErrorKind::denied);
  o.allow_files = true;
  o.max_bytes = 100;
  EXPECT_EQ(refusal([&] { fetch("rgb.png", o); }).kind(), ErrorKind::bad_file);
}

bool is_public(const std::string& text) {
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  if (inet_pton(AF_INET6, text.c_str(), &six.sin6_addr) == 1) return is_public_address(reinterpret_cast<const sockaddr*>(&six));
  sockaddr_in four{};
  four.sin_family = AF_INET;
  check(inet_pton(AF_INET, text.c_str(), &four.sin_addr) == 1, text);
  return is_public_address(reinterpret_cast<const sockaddr*>(&four));
}

TEST(Address, OnlyGlobalUnicastIsPublic) {
  for (const char* a : {"8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "223.255.255.255", "100.63.0.1", "2606:4700::1", "2001:4860:4860::8888",
                        "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"}) {
    EXPECT_TRUE(is_public(a)) << a;
  }
  for (const char* a : {"127.0.0.1", "127.255.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1", "198.18.0.1",
                        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1",
                        "2001:db8::1", "2001::1", "::7f00:1"}) {
    EXPECT_FALSE(is_public(a)) << a;
  }
}

}  // namespace
}  // namespace statera
