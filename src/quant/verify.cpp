// Reading back. Decoding follows docs/formats.md: element i of a row of words occupies bits i*b .. i*b+b-1, offset binary.
#include "quant/verify.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "base/threads.h"
#include "quant/checksum.h"

namespace statera {
namespace {

struct Entry {
  std::string dtype;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  size_t file = 0;
};

struct Reading {
  std::vector<MappedFile> files;
  std::map<std::string, Entry> tensors;
};

Reading read_all(const std::string& folder, const OutputPlan& plan) {
  Reading out;
  for (const auto& file : plan.shards.files) {
    const std::string path = folder + "/" + file.name;
    MappedFile map(path);
    uint64_t length = 0;
    if (map.size() < 8) throw Error(ErrorKind::bad_file, path + ": shorter than a header");
    std::memcpy(&length, map.data(), 8);
    if (length > map.size() - 8) throw Error(ErrorKind::bad_file, path + ": its header does not fit");
    const Json header = Json::parse({reinterpret_cast<const char*>(map.data()) + 8, length}, path);
    for (const auto& [name, t] : header.as_object(path)) {
      if (name == "__metadata__") continue;
      Entry e;
      e.dtype = t.at("dtype", name).as_string(name);
      for (const Json& d : t.at("shape", name).as_array(name)) e.shape.push_back(d.as_int(name));
      const auto& span = t.at("data_offsets", name).as_array(name);
      const int64_t begin = span.at(0).as_int(name), end = span.at(1).as_int(name);
      if (begin < 0 || end < begin || static_cast<uint64_t>(end) > map.size() - 8 - length)
        throw Error(ErrorKind::bad_file, path + ": tensor " + name + ": offsets outside the file");
      e.data = map.data() + 8 + length + begin;
      e.bytes = static_cast<uint64_t>(end - begin);
      e.file = out.files.size();
      if (!out.tensors.emplace(name, e).second) throw Error(ErrorKind::bad_file, path + ": tensor " + name + " stands in two files");
    }
    out.files.push_back(std::move(map));
  }
  return out;
}

int64_t code_at(const uint32_t* words, int64_t i, int bits) {
  const int64_t bit = i * bits, word = bit / 32, shift = bit % 32;
  uint64_t pair = words[word];
  if (shift + bits > 32) pair |= static_cast<uint64_t>(words[word + 1]) << 32;
  return static_cast<int64_t>((pair >> shift) & ((1u << bits) - 1)) - (int64_t{1} << (bits - 1));
}

class Checker {
 public:
  Checker(const std::string& folder, const OutputPlan& plan) : plan_(plan), reading_(read_all(folder, plan)), folder_(folder) {}

  int64_t tensors() {
    size_t planned = 0;
    for (const auto& file : plan_.shards.files) {
      for (const TensorInfo& info : file.plan.tensors) {
        ++planned;
        auto it = reading_.tensors.find(info.name);
        if (it == reading_.tensors.end()) fail(info.name, "missing");
        const Entry& e = it->second;
        if (plan_.shards.files[e.file].name != file.name) fail(info.name, "stands in another file");
        if (e.dtype != info.type->name || e.shape != info.shape || e.bytes != info.bytes)
          fail(info.name, "stands there as " + e.dtype + " " + shape_string(e.shape));
      }
    }
    if (planned != reading_.tensors.size()) throw Error(ErrorKind::bad_file, folder_ + ": holds tensors that were not planned");
    return static_cast<int64_t>(planned);
  }

  // Every byte, in parallel over tensors; pages are let go again.
  void contents(const std::vector<std::pair<std::string, uint64_t>>& checksums) const {
    const std::map<std::string, uint64_t> expected(checksums.begin(), checksums.end());
    std::vector<std::pair<std::string, const Entry*>> all;
    for (const auto& [name, e] : reading_.tensors) {
      if (!expected.count(name)) fail(name, "was never written");
      all.emplace_back(name, &e);
    }
    parallel_for(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto& [name, e] = all[static_cast<size_t>(i)];
        const MappedFile& file = reading_.files[e->file];
        file.check_not_truncated();
        Checksum sum;
        sum.add({e->data, static_cast<size_t>(e->bytes)});
        if (sum.value() != expected.at(name)) fail(name, "holds other bytes than were written");
        file.release(static_cast<uint64_t>(e->data - file.data()), e->bytes);
      }
    });
  }

  int64_t scales() {
    int64_t count = 0;
    for (const LayerPlan& l : plan_.layers) {
      const std::string name = l.stored.path + ".weight_scale";
      const at::Tensor s = floats(name);
      const float* v = s.const_data_ptr<float>();
      for (int64_t i = 0; i < s.numel(); ++i) {
        if (!std::isfinite(v[i]) || v[i] == 0) fail(name, "holds a scale that is no positive number");
      }
      count += s.numel();
      if (!l.stored.act || !l.stored.act->is_static) continue;
      const std::string input = l.stored.path + ".input_scale";
      const float scale = floats(input).item<float>();
      if (!(scale > 0 && std::isfinite(scale))) fail(input, "holds a scale that is no positive number");
      ++count;
    }
    return count;
  }

  QTensor decode(const LayerPlan& l) {
    const QSpec& spec = l.stored.spec;
    const int64_t N = l.stored.out, K = l.stored.in, G = spec.groups(K);
    QTensor q{spec, at::empty({N, K}, at::kChar), floats(l.stored.path + ".weight_scale"), {}};
    auto* codes = q.q.mutable_data_ptr<int8_t>();
    if (reading_.tensors.count(l.stored.path + ".weight_packed")) {
      const Entry& e = at(l.stored.path + ".weight_packed");
      const int64_t words = (K * spec.bits + 31) / 32;
      parallel_for(N, 16, [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> row(static_cast<size_t>(words));
        for (int64_t n = begin; n < end; ++n) {
          std::memcpy(row.data(), e.data + n * words * 4, static_cast<size_t>(words) * 4);
          for (int64_t k = 0; k < K; ++k) codes[n * K + k] = static_cast<int8_t>(code_at(row.data(), k, spec.bits));
        }
      });
    } else {
      const Entry& e = at(l.stored.path + ".weight");
      check(e.bytes == static_cast<uint64_t>(N * K), "int8 weight of another size");
      std::memcpy(codes, e.data, e.bytes);
    }
    if (!spec.symmetric) q.zero = zeros(l, N, G);
    return q;
  }

  void release() const {
    for (const MappedFile& f : reading_.files) f.release(0, f.size());
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& reason) const {
    auto it = plan_.shards.file_of.find(name);
    const std::string file = it == plan_.shards.file_of.end() ? folder_ : folder_ + "/" + plan_.shards.files[it->second].name;
    throw Error(ErrorKind::bad_file, "checking what was written: " + file + ": tensor " + name + ": " + reason);
  }

  const Entry& at(const std::string& name) const {
    auto it = reading_.tensors.find(name);
    if (it == reading_.tensors.end()) fail(name, "missing");
    return it->second;
  }

  at::Tensor floats(const std::string& name) const {
    const Entry& e = at(name);
    const StoredType* type = stored_type(e.dtype);
    if (!type) fail(name, "of unknown dtype " + e.dtype);
    at::Tensor t = at::empty(e.shape, type->torch);
    std::memcpy(t.mutable_data_ptr(), e.data, e.bytes);
    return t.to(at::kFloat);
  }

  // I32 [ceil(N*b/32), G] packed along N, or I8 [N, G].
  at::Tensor zeros(const LayerPlan& l, int64_t N, int64_t G) const {
    const Entry& e = at(l.stored.path + ".weight_zero_point");
    at::Tensor z = at::empty({N, G}, at::kChar);
    auto* to = z.mutable_data_ptr<int8_t>();
    if (e.dtype == "I8") {
      std::memcpy(to, e.data, e.bytes);
      return z;
    }
    const int64_t words = (N * l.stored.spec.bits + 31) / 32;
    std::vector<uint32_t> column(static_cast<size_t>(words));
    for (int64_t g = 0; g < G; ++g) {
      for (int64_t w = 0; w < words; ++w) std::memcpy(&column[static_cast<size_t>(w)], e.data + (w * G + g) * 4, 4);
      for (int64_t n = 0; n < N; ++n) to[n * G + g] = static_cast<int8_t>(code_at(column.data(), n, l.stored.spec.bits));
    }
    return z;
  }

  const OutputPlan& plan_;
  Reading reading_;
  std::string folder_;
};

}  // namespace

QuantizeReport::Verification verify_output(const std::string& folder, const OutputPlan& plan, const CheckpointSource& source,
                                           const Written& written, bool rewritten, size_t sample) {
  Checker checker(folder, plan);
  QuantizeReport::Verification out;
  out.tensors = checker.tensors();
  checker.contents(written.checksums);
  out.scales = checker.scales();
  const std::map<std::string, RoundingError> recorded(written.errors.begin(), written.errors.end());
  const size_t count = plan.layers.size(), taken = std::min(sample, count);
  for (size_t i = 0; i < taken; ++i) {
    const LayerPlan& l = plan.layers[taken == 1 ? 0 : i * (count - 1) / (taken - 1)];
    const QTensor q = checker.decode(l);
    ++out.layers_decoded;
    if (rewritten) continue;
    const double now = rounding_error(source.stored_weight(*l.site), q).relative(), then = recorded.at(l.stored.path).relative();
    source.release(*l.site);
    checker.release();
    const double difference = std::abs(now - then);
    // Both are sums of the same squares, one in fp32 lanes.
    if (!(difference <= 1e-4 * std::max(then, 1e-3))) {
      throw Error(ErrorKind::bad_file, "checking what was written: layer " + l.stored.path + " decodes to weights " + std::to_string(now) +
                                           " from the source, was rounded to " + std::to_string(then));
    }
    out.worst_difference = std::max(out.worst_difference, difference);
  }
  return out;
}

}  // namespace statera
