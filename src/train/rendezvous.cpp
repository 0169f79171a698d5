// See rendezvous.h.
#include "train/rendezvous.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace statera {

struct Rendezvous::Store {
  c10::intrusive_ptr<c10d::Store> names;
  std::string where;
  std::chrono::milliseconds wait;
};

namespace {

std::string first_line(std::string text) {
  text.resize(std::min(text.size(), text.find('\n')));
  return text;
}

// The store logs what it also throws; a user who wants both says so.
void keep_quiet() {
  [[maybe_unused]] static const bool once = [] {
    if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    return true;
  }();
}

}  // namespace

Rendezvous::Rendezvous(const Launch& launch, std::chrono::milliseconds wait) : store_(std::make_unique<Store>()) {
  store_->where = launch.host + ":" + std::to_string(launch.port);
  store_->wait = wait;
  keep_quiet();
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = launch.rank == 0 && !launch.agents_store;
  options.numWorkers = static_cast<size_t>(launch.world);
  options.waitWorkers = false;
  options.timeout = wait;
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.host, options);
    store_->names = c10::make_intrusive<c10d::PrefixStore>("statera/" + launch.attempt, std::move(store));
  } catch (const std::exception& e) {
    log_debug(e.what());
    throw Error(ErrorKind::network, store_->where + (options.isServer ? ": the first rank cannot listen there (MASTER_ADDR, MASTER_PORT): "
                                                                      : ": no first rank answers there (MASTER_ADDR, MASTER_PORT): ") +
                                        first_line(e.what()));
  }
}

Rendezvous::~Rendezvous() = default;

void Rendezvous::set(const std::string& name, const std::string& value) {
  try {
    store_->names->set(name, std::vector<uint8_t>(value.begin(), value.end()));
  } catch (const std::exception& e) {
    throw Error(ErrorKind::network, store_->where + ": " + first_line(e.what()));
  }
}

std::string Rendezvous::get(const std::string& name, const std::string& whose) {
  try {
    store_->names->wait({name}, store_->wait);
    const std::vector<uint8_t> value = store_->names->get(name);
    return {value.begin(), value.end()};
  } catch (const std::exception& e) {
    log_debug(e.what());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(store_->wait).count();
    throw Error(ErrorKind::network, store_->where + ": " + whose + " did not come within " + std::to_string(seconds) + " s");
  }
}

}  // namespace statera
