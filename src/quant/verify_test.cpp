// What the load test finds: any tensor of the output missing, renamed, cut short, moved or changed in one bit.
#include "quant/verify.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "quant/checksum.h"
#include "quant/pipeline.h"
#include "quant/test_model.h"

namespace statera {
namespace {
namespace fs = std::filesystem;

class Verify : public ::testing::TestWithParam<bool> {  // parameter: asymmetric, so with zero points
 protected:
  Verify() : in_(dir_ / "in"), out_(dir_ / "out") {
    fs::create_directory(in_);
    write_toy(in_, toy_tensors(at::kBFloat16));
    QuantizeSettings s;
    s.plan.weights = {4, 32, !GetParam()};
    s.version = "test";
    toy_.emplace(in_);
    run_quantization(*toy_->model, toy_->source, s, out_);
    plan_ = plan_output(*toy_->model, toy_->source, s.plan);
    const Checkpoint c = Checkpoint::open(out_);
    for (const std::string& name : c.names()) {
      tensors_.emplace_back(name, c.tensor(name).clone());
      const TensorInfo& info = *c.find(name);
      Checksum sum;
      sum.add({c.file_of(name).mapping().data() + info.offset, static_cast<size_t>(info.bytes)});
      written_.checksums.emplace_back(name, sum.value());
    }
    for (const LayerPlan& l : plan_.layers) {
      const at::Tensor W = toy_->source.checkpoint().tensor(l.source);
      written_.errors.emplace_back(l.stored.path, rounding_error(W, rtn(W, s.plan.weights)));
    }
  }
  // What the check says of the output with other tensors in it; empty: nothing.
  std::string check(const NamedTensors& tensors) {
    write_safetensors(out_ + "/model.safetensors", tensors);
    return check();
  }
  std::string check() {
    try {
      verify_output(out_, plan_, toy_->source, written_, false);
    } catch (const Error& e) {
      return e.message();
    }
    return "";
  }
  TempDir dir_;
  std::string in_, out_;
  std::optional<Toy> toy_;
  OutputPlan plan_;
  Written written_;
  NamedTensors tensors_;
};

TEST_P(Verify, TheOutputAsItWasWrittenPasses) { EXPECT_EQ(check(tensors_), ""); }

TEST_P(Verify, EveryTensorIsMissed) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    NamedTensors less = tensors_;
    less.erase(less.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_NE(check(less).find("tensor " + tensors_[i].first + ": missing"), std::string::npos) << tensors_[i].first;
  }
}

TEST_P(Verify, EveryRenamedTensorIsMissed) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    NamedTensors other = tensors_;
    other[i].first += "_";
    EXPECT_NE(check(other).find("tensor " + tensors_[i].first + ": missing"), std::string::npos) << tensors_[i].first;
  }
}

TEST_P(Verify, EveryShortenedTensorIsFound) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    NamedTensors other = tensors_;
    const int64_t rows = other[i].second.size(0);
    other[i].second = other[i].second.slice(0, 0, rows - 1).contiguous();
    EXPECT_NE(check(other).find(tensors_[i].first + ": stands there as"), std::string::npos) << tensors_[i].first;
  }
}

TEST_P(Verify, OneChangedBitInAnyTensorIsFound) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    for (const bool last : {false, true}) {
      NamedTensors other = tensors_;
      other[i].second = other[i].second.clone();
      auto* bytes = static_cast<uint8_t*>(other[i].second.mutable_data_ptr());
      bytes[last ? other[i].second.nbytes() - 1 : 0] ^= 1;
      EXPECT_NE(check(other).find(tensors_[i].first + ": holds other bytes"), std::string::npos) << tensors_[i].first;
    }
  }
}

TEST_P(Verify, SwappedTensorsOfOneShapeAreFound) {
  NamedTensors other = tensors_;
  auto named = [&](const std::string& name) -> at::Tensor& {
    for (auto& [n, t] : other) {
      if (n == name) return t;
    }
    throw Bug("no " + name);
  };
  std::swap(named("model.layers.0.mlp.gate_proj.weight_packed"), named("model.layers.0.mlp.up_proj.weight_packed"));
  EXPECT_NE(check(other).find("holds other bytes"), std::string::npos);
}

TEST_P(Verify, ACutFileIsFound) {
  const std::string path = out_ + "/model.safetensors";
  for (uint64_t size : {file_size(path) - 1, file_size(path) / 2, uint64_t{100}, uint64_t{3}}) {
    fs::resize_file(path, size);
    EXPECT_NE(check(), "") << size;
  }
  fs::remove(path);
  EXPECT_NE(check(), "");
}

INSTANTIATE_TEST_SUITE_P(Symmetry, Verify, ::testing::Values(false, true));

TEST(Checksum, DoesNotDependOnTheSplitAndSeesOrderAndLength) {
  std::vector<std::byte> bytes(1000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  auto of = [](std::span<const std::byte> a, std::span<const std::byte> b) {
    Checksum c;
    c.add(a);
    c.add(b);
    return c.value();
  };
  const std::span<const std::byte> all(bytes);
  const uint64_t whole = of(all, {});
  for (size_t cut : {32, 64, 992}) EXPECT_EQ(of(all.first(cut), all.subspan(cut)), whole);
  EXPECT_NE(of(all.first(999), {}), whole);
  std::swap(bytes[0], bytes[8]);
  EXPECT_NE(of(all, {}), whole);
  std::vector<std::byte> zeros(64);
  EXPECT_NE(of(std::span(zeros).first(32), {}), of(zeros, {}));
}

}  // namespace
}  // namespace statera
