// address: which network addresses a fetch may connect to. Loopback, private, link-local (with cloud metadata), shared, multicast,
// reserved and the IPv6 forms that embed such an IPv4 address are refused. Pure arithmetic on addresses, no name lookup.
#pragma once

#include <cstdint>
#include <string>

struct sockaddr;

namespace statera {

// True for globally routable unicast addresses (IPv4 or IPv6); false for every other family.
bool is_public_address(const sockaddr* address);
// "127.0.0.1" or "::1"; "unknown" for other families.
std::string address_text(const sockaddr* address);

}  // namespace statera
