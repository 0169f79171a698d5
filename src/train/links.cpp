// See links.h. Every rank listens at a port of its own, tells it to the others, connects to the ranks before it and is called by those after it.
#include "train/links.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "base/error.h"
#include "train/rendezvous.h"

namespace statera {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kToken = 32;        // hexadecimal digits that prove a caller to be of this run
constexpr size_t kParts = 64;        // pieces given to the kernel at once
constexpr milliseconds kHello{5000};  // in which a caller says who it is

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct Address {
  sockaddr_storage at{};
  socklen_t size = 0;
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&at); }
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&at); }
  bool loopback() const {
    if (at.ss_family == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in&>(at).sin_addr.s_addr) >> 24) == 127;
    return at.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(at).sin6_addr);
  }
  std::string host() const {
    std::array<char, NI_MAXHOST> text{};
    return ::getnameinfo(raw(), size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0 ? text.data() : "";
  }
  uint16_t port() const {
    return ntohs(at.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in&>(at).sin_port : reinterpret_cast<const sockaddr_in6&>(at).sin6_port);
  }
  void set_port(uint16_t port) {
    if (at.ss_family == AF_INET) {
      reinterpret_cast<sockaddr_in&>(at).sin_port = htons(port);
    } else {
      reinterpret_cast<sockaddr_in6&>(at).sin6_port = htons(port);
    }
  }
};

[[noreturn]] void fail(const std::string& what, int code) { throw io_error(what, code); }

std::vector<Address> resolve(const std::string& host, uint16_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) throw Error(ErrorKind::network, host + ": " + ::gai_strerror(code));
  std::vector<Address> out;
  for (const addrinfo* a = found; a; a = a->ai_next) {
    Address one;
    std::memcpy(&one.at, a->ai_addr, a->ai_addrlen);
    one.size = a->ai_addrlen;
    out.push_back(one);
  }
  ::freeaddrinfo(found);
  return out;
}

// The address that this machine has on the way to the meeting place.
Address own_address(const Launch& launch) {
  for (const Address& there : resolve(launch.host, launch.port)) {
    const Socket probe(::socket(there.at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    Address own;
    own.size = sizeof own.at;
    if (probe && ::connect(probe.fd(), there.raw(), there.size) == 0 && ::getsockname(probe.fd(), own.raw(), &own.size) == 0) return own;
  }
  throw Error(ErrorKind::network, launch.host + ": no way there (MASTER_ADDR)");
}

bool means_this_machine(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

Socket listen_at(Address& own, const Launch& launch) {
  own.set_port(0);
  Address bound = own;
  // A name of this machine may stand for 127.0.1.1 here and for a real address elsewhere.
  if (own.loopback() && !means_this_machine(launch.host)) {
    if (bound.at.ss_family == AF_INET) reinterpret_cast<sockaddr_in&>(bound.at).sin_addr.s_addr = htonl(INADDR_ANY);
    else reinterpret_cast<sockaddr_in6&>(bound.at).sin6_addr = in6addr_any;
  }
  Socket out(::socket(own.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out || ::bind(out.fd(), bound.raw(), bound.size) != 0 || ::listen(out.fd(), static_cast<int>(launch.world)) != 0)
    fail("listening for other ranks at " + own.host(), errno);
  Address real;
  real.size = sizeof real.at;
  if (::getsockname(out.fd(), real.raw(), &real.size) != 0) fail("listening for other ranks", errno);
  own.set_port(real.port());
  return out;
}

int wait_for(int fd, short events, Clock::time_point until) {
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now()).count();
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, static_cast<int>(std::max<int64_t>(0, left)));
    if (n >= 0 || errno != EINTR) return n;
  }
}

Socket call(const std::string& host, uint16_t port, Clock::time_point until) {
  int code = ECONNREFUSED;
  for (const Address& there : resolve(host, port)) {
    Socket s(::socket(there.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!s) continue;
    if (::connect(s.fd(), there.raw(), there.size) == 0) return s;
    code = errno;
    if (code != EINPROGRESS || wait_for(s.fd(), POLLOUT, until) <= 0) continue;
    socklen_t size = sizeof code;
    if (::getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &code, &size) == 0 && code == 0) return s;
  }
  throw io_error(host + ":" + std::to_string(port), code);
}

// A dead process closes its connections; these find a machine that is gone.
void watch_over(int fd) {
  auto set = [&](int level, int option, int value) { ::setsockopt(fd, level, option, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 60'000);
}

std::string fresh_token() {
  std::random_device device;
  std::string out;
  for (size_t i = 0; i < kToken; ++i) out += "0123456789abcdef"[device() % 16];
  return out;
}

// "TOKEN" and the rank in eight digits.
std::string hello(const std::string& token, int64_t rank) {
  const std::string digits = std::to_string(rank);
  return token + std::string(8 - digits.size(), '0') + digits;
}

bool read_hello(int fd, std::string& text) {
  const auto until = Clock::now() + kHello;
  text.assign(kToken + 8, '\0');
  for (size_t at = 0; at < text.size();) {
    if (wait_for(fd, POLLIN, until) <= 0) return false;
    const ssize_t n = ::recv(fd, text.data() + at, text.size() - at, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) at += static_cast<size_t>(n);
  }
  return true;
}

// What is still to be moved in one direction over one connection.
struct Flow {
  std::vector<iovec> parts;
  size_t next = 0;
  bool done() const { return next == parts.size(); }
  void add(const void* data, size_t bytes) {
    if (bytes > 0) parts.push_back({const_cast<void*>(data), bytes});
  }
  void moved(size_t bytes) {
    while (bytes > 0) {
      iovec& p = parts[next];
      const size_t n = std::min(bytes, p.iov_len);
      p.iov_base = static_cast<char*>(p.iov_base) + n;
      p.iov_len -= n;
      bytes -= n;
      if (p.iov_len == 0) ++next;
    }
  }
};

std::string rank_of(int64_t rank, int64_t world) { return "rank " + std::to_string(rank) + " of " + std::to_string(world); }

[[noreturn]] void gone(int64_t rank, int64_t world) {
  throw Error(ErrorKind::network, rank_of(rank, world) + " is gone: its connection ended (its own last line tells why, unless it was killed)");
}

// Moves what can be moved now; false when nothing could.
bool push(Flow& flow, int fd, bool sends, int64_t rank, int64_t world) {
  bool moved = false;
  while (!flow.done()) {
    msghdr message{};
    message.msg_iov = flow.parts.data() + flow.next;
    message.msg_iovlen = std::min(kParts, flow.parts.size() - flow.next);
    const ssize_t n = sends ? ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : ::recvmsg(fd, &message, MSG_DONTWAIT);
    if (n > 0) {
      flow.moved(static_cast<size_t>(n));
      moved = true;
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return moved;
    } else {
      gone(rank, world);
    }
  }
  return moved;
}

template <class Pieces>
uint64_t bytes_of(const Pieces& pieces) {
  uint64_t sum = 0;
  for (const auto& p : pieces) sum += p.size();
  return sum;
}

}  // namespace

Links::Links(const Launch& launch, milliseconds join, milliseconds wait)
    : rank_(launch.rank), world_(launch.world), wait_(wait), sockets_(static_cast<size_t>(launch.world), -1) {
  try {
    connect_all(launch, join);
  } catch (...) {
    close_all();
    throw;
  }
}

Links::~Links() { close_all(); }

void Links::close_all() noexcept {
  for (int fd : sockets_) {
    if (fd >= 0) ::close(fd);
  }
}

void Links::connect_all(const Launch& launch, milliseconds join) {
  const auto until = Clock::now() + join;
  Rendezvous names(launch, join);
  if (rank_ == 0) names.set("token", fresh_token());
  const std::string token = names.get("token", rank_of(0, world_));
  Address own = own_address(launch);
  const Socket door = listen_at(own, launch);
  names.set("address/" + std::to_string(rank_), (own.loopback() ? "" : own.host()) + " " + std::to_string(own.port()));
  for (int64_t r = 0; r < rank_; ++r) {
    const std::string address = names.get("address/" + std::to_string(r), rank_of(r, world_));
    const size_t blank = address.find(' ');
    // A loopback address is told by ranks of the machine that MASTER_ADDR names.
    const std::string host = blank == 0 ? launch.host : address.substr(0, blank);
    Socket s = call(host, static_cast<uint16_t>(std::stoi(address.substr(blank + 1))), until);
    const std::string text = hello(token, rank_);
    if (::send(s.fd(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) gone(r, world_);
    sockets_[static_cast<size_t>(r)] = s.release();
  }
  for (int64_t missing = world_ - 1 - rank_; missing > 0;) {
    if (wait_for(door.fd(), POLLIN, until) <= 0)
      throw Error(ErrorKind::network, std::to_string(missing) + " of " + std::to_string(world_) + " ranks did not come within " +
                                          std::to_string(join.count() / 1000) + " s");
    Socket s(::accept4(door.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    std::string text;
    if (!s || !read_hello(s.fd(), text) || !text.starts_with(token)) continue;  // somebody else's call
    const int64_t r = std::stoll(text.substr(kToken));
    if (r >= world_) throw Error(ErrorKind::usage, "rank " + std::to_string(r) + " came to " + std::to_string(world_) + " ranks: WORLD_SIZE differs among them");
    if (r <= rank_ || sockets_[static_cast<size_t>(r)] >= 0)
      throw Error(ErrorKind::usage, rank_of(r, world_) + " came twice: two processes have the same RANK");
    sockets_[static_cast<size_t>(r)] = s.release();
    --missing;
  }
  for (int fd : sockets_) {
    if (fd >= 0) watch_over(fd);
  }
  // The first rank may serve the names: it stays until all have read them.
  exchange(std::vector<Parts>(sockets_.size()), std::vector<Rooms>(sockets_.size()));
}

void Links::exchange(const std::vector<Parts>& out, const std::vector<Rooms>& in) {
  const auto world = static_cast<size_t>(world_);
  std::vector<uint64_t> sizes(world), told(world);
  std::vector<Flow> sends(world), receives(world);
  for (size_t r = 0; r < world; ++r) {
    if (sockets_[r] < 0) continue;
    sizes[r] = bytes_of(out[r]);
    sends[r].add(&sizes[r], sizeof sizes[r]);
    for (const auto& p : out[r]) sends[r].add(p.data(), p.size());
    receives[r].add(&told[r], sizeof told[r]);
    for (const auto& p : in[r]) receives[r].add(p.data(), p.size());
  }
  std::vector<bool> agreed(world, false);
  while (true) {
    bool moved = false;
    std::vector<pollfd> open;
    std::vector<size_t> who;
    for (size_t r = 0; r < world; ++r) {
      if (sockets_[r] < 0) continue;
      const auto rank = static_cast<int64_t>(r);
      moved |= push(sends[r], sockets_[r], true, rank, world_);
      moved |= push(receives[r], sockets_[r], false, rank, world_);
      if (!agreed[r] && receives[r].next > 0) {
        if (told[r] != bytes_of(in[r]))
          throw Error(ErrorKind::mismatch, rank_of(rank, world_) + " sends " + std::to_string(told[r]) + " bytes where " + std::to_string(bytes_of(in[r])) +
                                               " are expected: the ranks do different things");
        agreed[r] = true;
      }
      const int events = (sends[r].done() ? 0 : POLLOUT) | (receives[r].done() ? 0 : POLLIN);
      if (events == 0) continue;
      open.push_back({sockets_[r], static_cast<short>(events), 0});
      who.push_back(r);
    }
    if (open.empty()) return;
    if (moved) continue;
    const int n = ::poll(open.data(), open.size(), static_cast<int>(wait_.count()));
    if (n < 0 && errno != EINTR) fail("waiting for other ranks", errno);
    if (n == 0)
      throw Error(ErrorKind::network, rank_of(static_cast<int64_t>(who[0]), world_) + " does not answer for " + std::to_string(wait_.count() / 1000) +
                                          " s (--rank-timeout)");
  }
}

}  // namespace statera
