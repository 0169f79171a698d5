// address: see the header. The IPv4 list is IANA's special-purpose registry; IPv6 allows only 2000::/3 less its special parts.
#include "image/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace statera {
namespace {

struct Net4 {
  uint32_t base;
  int bits;
};
constexpr Net4 kSpecial4[] = {
    {0x00000000, 8},   // this network
    {0x0A000000, 8},   // private
    {0x64400000, 10},  // shared (carrier NAT)
    {0x7F000000, 8},   // loopback
    {0xA9FE0000, 16},  // link-local, cloud metadata
    {0xAC100000, 12},  // private
    {0xC0000000, 24},  // protocol assignments
    {0xC0000200, 24},  // documentation
    {0xC0586300, 24},  // 6to4 relay
    {0xC0A80000, 16},  // private
    {0xC6120000, 15},  // benchmarking
    {0xC6336400, 24},  // documentation
    {0xCB007100, 24},  // documentation
    {0xE0000000, 3},   // multicast, reserved, broadcast
};

bool is_public4(uint32_t host_order) {
  for (const Net4& net : kSpecial4) {
    if ((host_order ^ net.base) >> (32 - net.bits) == 0) return false;
  }
  return true;
}

uint32_t be32(const uint8_t* p) { return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3]; }

bool is_public6(const uint8_t* a) {
  static constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  static constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xFF, 0x9B};
  if (std::memcmp(a, kMapped.data(), 12) == 0 || std::memcmp(a, kNat64.data(), 12) == 0) return is_public4(be32(a + 12));
  if (a[0] == 0x20 && a[1] == 0x02) return is_public4(be32(a + 2));  // 6to4
  if (a[0] >> 5 != 1) return false;                                  // outside 2000::/3: loopback, local, unique local, multicast
  if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 2) return false;        // 2001::/23: Teredo, ORCHID and others
  if (be32(a) == 0x20010DB8) return false;                           // documentation
  if (a[0] == 0x3F && a[1] == 0xFF && a[2] < 0x10) return false;     // documentation
  return true;
}

}  // namespace

bool is_public_address(const sockaddr* address) {
  if (address->sa_family == AF_INET) return is_public4(ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr));
  if (address->sa_family == AF_INET6) return is_public6(reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr.s6_addr);
  return false;
}

std::string address_text(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "unknown";
  if (address->sa_family == AF_INET) inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  if (address->sa_family == AF_INET6) inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text, sizeof text);
  return text;
}

}  // namespace statera
