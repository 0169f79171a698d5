// What the threads do: parts of long caches for few queries, else packing of keys and tiles of queries. The split follows from lengths
// alone, so results do not depend on the number of threads.
#include "nn/attend_kernel.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/attn/attn.h"
#include "nn/elementwise.h"
#include "nn/kv_cache.h"

namespace statera {
namespace {

namespace attn = kernels::attn;

constexpr int64_t kPackedBytes = int64_t{1} << 25;   // of the key heads that are packed at a time
constexpr int64_t kSmall = int64_t{1} << 16;         // multiplications that are not worth a thread

// Queries of a step: each part of each key head is a task.
void few_queries(const std::vector<attn::Sequence>& sequences, const attn::Shape& shape) {
  struct Task {
    const attn::Sequence* s;
    int64_t head, part, at;  // at: its place among the results
  };
  std::vector<Task> tasks, merges;
  int64_t floats = 0, work = 0;
  for (const attn::Sequence& s : sequences) {
    for (int64_t head = 0; head < shape.key_heads; ++head) {
      merges.push_back({&s, head, 0, floats});
      for (int64_t part = 0; part < attn::parts(s.keys); ++part, floats += attn::part_size(s.queries, shape)) tasks.push_back({&s, head, part, floats});
    }
    work += s.queries * s.keys * shape.heads * (shape.d + shape.dv);
  }
  if (tasks.empty()) return;
  const at::Tensor buffer = at::empty({floats}, at::kFloat);
  float* results = buffer.mutable_data_ptr<float>();
  const auto count = static_cast<int64_t>(tasks.size());
  parallel_for(count, std::max<int64_t>(1, kSmall * count / std::max<int64_t>(work, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Task& t = tasks[static_cast<size_t>(i)];
      attn::run_part(*t.s, shape, t.head, t.part, results + t.at);
    }
  });
  const auto heads = static_cast<int64_t>(merges.size());
  parallel_for(heads, std::max<int64_t>(1, kSmall * heads / std::max<int64_t>(floats, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attn::merge(*merges[static_cast<size_t>(i)].s, shape, merges[static_cast<size_t>(i)].head, results + merges[static_cast<size_t>(i)].at);
  });
}

// Bytes of one packed block.
int64_t block_bytes(const attn::Shape& shape, bool coded) { return coded ? attn::coded_size(shape) : attn::packed_size(shape) * int64_t{sizeof(float)}; }

// Key heads whose packed blocks fit together: packed by blocks, then read by the tiles of their query heads. coded: in integers.
struct Packed {
  const attn::Sequence* s;
  int64_t head;
  uint8_t* data;
};

void run_packed(const std::vector<Packed>& heads, const attn::Shape& shape, bool coded) {
  struct Task {
    const Packed* of;
    int64_t head, index;
  };
  std::vector<Task> blocks, tiles;
  int64_t most = 0;
  for (const Packed& p : heads) {
    for (int64_t b = 0; b < attn::blocks(p.s->keys); ++b) blocks.push_back({&p, p.head, b});
    most = std::max(most, attn::tiles(p.s->queries));
  }
  for (int64_t tile = most - 1; tile >= 0; --tile) {  // the last tile sees the most keys, so none that is long begins last
    for (const Packed& p : heads) {
      if (tile >= attn::tiles(p.s->queries)) continue;
      for (int64_t g = 0; g < shape.group(); ++g) tiles.push_back({&p, p.head * shape.group() + g, tile});
    }
  }
  auto over = [](const std::vector<Task>& tasks, auto&& f) {
    parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(tasks[static_cast<size_t>(i)]);
    });
  };
  const int64_t bytes = block_bytes(shape, coded);
  if (!coded) {
    over(blocks, [&](const Task& t) { attn::pack(*t.of->s, shape, t.head, t.index, reinterpret_cast<float*>(t.of->data + t.index * bytes)); });
    return over(tiles, [&](const Task& t) { attn::run_tile(*t.of->s, shape, t.head, t.index, reinterpret_cast<const float*>(t.of->data)); });
  }
  std::vector<float> means(heads.size() * static_cast<size_t>(shape.d));
  auto mean = [&](const Packed& of) { return means.data() + (&of - heads.data()) * shape.d; };
  parallel_for(static_cast<int64_t>(heads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attn::mean_key(*heads[static_cast<size_t>(i)].s, shape, heads[static_cast<size_t>(i)].head, mean(heads[static_cast<size_t>(i)]));
  });
  over(blocks, [&](const Task& t) { attn::pack_coded(*t.of->s, shape, t.head, t.index, mean(*t.of), t.of->data + t.index * bytes); });
  over(tiles, [&](const Task& t) { attn::run_coded_tile(*t.of->s, shape, t.head, t.index, t.of->data); });
}

void many_queries(const std::vector<attn::Sequence>& sequences, const attn::Shape& shape, bool coded) {
  const int64_t bytes = block_bytes(shape, coded);
  int64_t total = 0, longest = 0;
  for (const attn::Sequence& s : sequences) {
    const int64_t size = attn::blocks(s.keys) * bytes;
    total += size * shape.key_heads;
    longest = std::max(longest, size);
  }
  if (total == 0) return;
  const int64_t room = std::max(longest, std::min(total, kPackedBytes));
  const at::Tensor buffer = at::empty({room}, at::kByte);
  uint8_t* data = buffer.mutable_data_ptr<uint8_t>();
  std::vector<Packed> heads;
  int64_t used = 0;
  for (const attn::Sequence& s : sequences) {
    const int64_t size = attn::blocks(s.keys) * bytes;
    for (int64_t head = 0; head < shape.key_heads; ++head) {
      if (used + size > room) {
        run_packed(heads, shape, coded);
        heads.clear();
        used = 0;
      }
      heads.push_back({&s, head, data + used});
      used += size;
    }
  }
  run_packed(heads, shape, coded);
}

attn::View view(const at::Tensor& x_TNd, int64_t row = 0) {
  return {x_TNd.const_data_ptr<float>() + row * x_TNd.stride(0), x_TNd.stride(0), x_TNd.stride(1)};
}

attn::Stored floats(const attn::View& x) { return {x.data, x.row, x.head}; }

attn::Stored stored(const KvRows& rows) {
  const at::ScalarType kept = rows.data.scalar_type();
  check(kept == at::kFloat || kept == at::kHalf || kept == at::kChar, "the cache holds what kernels do not read");
  const int64_t capacity = rows.data.size(1), d = rows.data.size(2);
  const attn::Form form = kept == at::kFloat ? attn::Form::f32 : kept == at::kHalf ? attn::Form::f16 : attn::Form::i8;
  return {rows.data.const_data_ptr(), d, capacity * d, form, rows.scale.defined() ? rows.scale.const_data_ptr<float>() : nullptr, capacity};
}

}  // namespace

bool attends_in_kernels(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  for (const at::Tensor* x : {&q, &k, &v}) {
    if (!kernel_reads(*x) || x->stride(2) != 1 || x->size(2) < 1 || x->size(2) > attn::kMaxWidth) return false;
  }
  return true;
}

bool picture_attention_pays() { return attn::codes_are_fast(); }

at::Tensor attend_in_kernels(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendSite& site, double scale,
                             const SequenceBounds& b, const std::vector<KvCache*>& caches) {
  const attn::Shape shape{.heads = q.size(1), .key_heads = k.size(1), .d = q.size(2), .dv = v.size(2), .scale = static_cast<float>(scale),
                          .causal = site.causal, .window = site.causal ? site.window : 0};
  const int64_t width = shape.heads * shape.dv;
  check(!site.in_integers || (!site.causal && caches.empty()), "attention in integers hides no keys and keeps none");
  at::Tensor out = at::empty({q.size(0), width}, q.options());
  std::vector<attn::Sequence> few, many;
  for (size_t i = 0; i + 1 < b.size(); ++i) {
    const int64_t first = b[i], rows = b[i + 1] - first;
    if (rows == 0) continue;
    attn::Sequence s{.q = view(q, first), .k = floats(view(k, first)), .v = floats(view(v, first)), .out = out.mutable_data_ptr<float>() + first * width, .out_row = width,
                     .queries = rows, .keys = rows};
    if (!caches.empty()) {
      const bool all = rows == k.size(0);
      KvCache& cache = *caches[i];
      cache.append(site.layer, all ? k : k.slice(0, first, b[i + 1]), all ? v : v.slice(0, first, b[i + 1]));
      s.k = stored(cache.keys(site.layer));
      s.v = stored(cache.values(site.layer));
      s.keys = cache.length(site.layer);
    }
    (attn::few(rows, shape) ? few : many).push_back(s);
  }
  few_queries(few, shape);
  many_queries(many, shape, site.in_integers);
  return out;
}

}  // namespace statera
