// Rendezvous: names and values that ranks tell each other before they are connected, in c10d's TCPStore, which torchrun serves and the first
// rank otherwise. The one place of c10d's headers; what training moves goes over links.h.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "train/launch.h"

namespace statera {

class Rendezvous {
 public:
  // Error(network) when nobody answers at the address within `wait`, or the first rank cannot listen there.
  Rendezvous(const Launch& launch, std::chrono::milliseconds wait);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;
  void set(const std::string& name, const std::string& value);
  // Waits until somebody has set it; Error(network) naming `whose` when nobody does.
  std::string get(const std::string& name, const std::string& whose);

 private:
  struct Store;
  std::unique_ptr<Store> store_;
};

}  // namespace statera
