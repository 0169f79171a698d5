// The page: a summary a person reads in ten seconds, then charts, then tables. Charts are report_svg.h's.
#include "quant/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/strings.h"
#include "quant/report_svg.h"

namespace statera {
namespace {

using Report = QuantizeReport;

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--mute:#667085;--line:#e4e7ec;--c0:#2563eb;--c1:#d97706;--c2:#0d9488;--c3:#9333ea;
--c4:#be185d;--c5:#4d7c0f;--c6:#0891b2;--c7:#78716c;--rtn:#98a2b3;--good:#16a34a;--bad:#dc2626;--badbg:#fef2f2;--badline:#fecaca}
@media(prefers-color-scheme:dark){:root{--bg:#12151a;--card:#1a1f27;--ink:#e6eaf0;--mute:#9aa5b5;--line:#2b323d;--c0:#6ea8fe;--c1:#f5a524;--c2:#2dd4bf;--c3:#c084fc;
--c4:#f472b6;--c5:#a3e635;--c6:#22d3ee;--c7:#a8a29e;--rtn:#7b8798;--good:#4ade80;--bad:#f87171;--badbg:#2c1a1d;--badline:#5b2a2f}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 2px;letter-spacing:-.01em}h2{font-size:16px;margin:0 0 4px}
p{margin:4px 0 10px}.mute,.small{color:var(--mute)}section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin-top:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin-top:18px}.tile{background:var(--card);border:1px solid var(--line);
border-radius:12px;padding:14px 16px}.tile b{display:block;font-size:22px;letter-spacing:-.01em;font-variant-numeric:tabular-nums}.tile span{color:var(--mute);font-size:12.5px}
.tile .goodtext,.goodtext{color:var(--good)}.tile .badtext,.badtext{color:var(--bad)}.flag{background:var(--badbg);border-color:var(--badline)}.charts{display:flex;flex-wrap:wrap;gap:14px 22px;margin-top:8px}
svg{max-width:100%;height:auto;display:block}svg text{font-size:12px;fill:var(--ink)}svg text.small{font-size:11px;fill:var(--mute)}svg text.ink{fill:var(--ink)}svg text.head{font-weight:600}
.end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:var(--line);stroke-width:1;fill:none}.level{stroke:var(--mute);stroke-width:1;stroke-dasharray:2 3;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.dash{stroke-dasharray:5 4;stroke-width:1.5}.thin{stroke-width:1;stroke-opacity:.45}.mark{fill:var(--c1);fill-opacity:.85}
.cell.good{fill:var(--good)}.cell.bad{fill:var(--bad)}.bar{stroke:none}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}.s7{stroke:var(--c7)}.sr{stroke:var(--rtn)}
.dot,.bar,.key{stroke:none}.dot.s0,.bar.s0,.key.s0{fill:var(--c0);background:var(--c0)}.dot.s1,.bar.s1,.key.s1{fill:var(--c1);background:var(--c1)}.dot.s2,.bar.s2,.key.s2{fill:var(--c2);background:var(--c2)}
.dot.s3,.bar.s3,.key.s3{fill:var(--c3);background:var(--c3)}.dot.s4,.bar.s4,.key.s4{fill:var(--c4);background:var(--c4)}.dot.s5,.bar.s5,.key.s5{fill:var(--c5);background:var(--c5)}
.dot.s6,.bar.s6,.key.s6{fill:var(--c6);background:var(--c6)}.dot.s7,.bar.s7,.key.s7{fill:var(--c7);background:var(--c7)}.dot.sr,.bar.sr{fill:var(--rtn)}
.key{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin-top:6px}
th{font-weight:600;color:var(--mute);font-size:12px;text-align:right;padding:4px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
td{text-align:right;padding:4px 12px;border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left;padding-left:0}td:last-child{white-space:normal}
tr:last-child td{border-bottom:0}code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}summary{cursor:pointer;font-weight:600}ul{margin:6px 0 0;padding-left:18px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:16px}.two section{min-width:0}@media(max-width:480px){.two{grid-template-columns:1fr}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
)";

std::string size(uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

// Where a layer stands: the stack before the first number, the number, its own name (of experts without their number).
struct Place {
  std::string stack, kind;
  int block = -1;
};

Place place_of(const std::string& name) {
  Place out;
  const auto parts = split(name, '.');
  auto is_number = [](const std::string& p) { return !p.empty() && p.size() < 7 && std::all_of(p.begin(), p.end(), [](unsigned char c) { return std::isdigit(c); }); };
  for (const std::string& p : parts) {
    if (out.block < 0 && is_number(p))
      out.block = std::stoi(p);
    else if (out.block < 0)
      out.stack += p + ".";
  }
  out.kind = parts.back();
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (parts[i] == "experts") out.kind = "experts " + parts.back();
  }
  if (out.block < 0) out.stack.clear();
  if (out.stack.find("visual") != out.stack.npos || out.stack.find("vision") != out.stack.npos) out.kind = "vision " + out.kind;
  return out;
}

struct Row {
  std::string kind;
  std::map<int, std::vector<const Report::Layer*>> blocks;
};

// Where a kind of layer comes in a block; what is not listed comes last, as it appears.
size_t order_of(const std::string& kind) {
  static const std::vector<std::string> known = {"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"};
  return static_cast<size_t>(std::find(known.begin(), known.end(), kind) - known.begin());
}

// Layers by kind.
std::vector<Row> rows_of(const std::vector<Report::Layer>& layers) {
  std::vector<Row> out;
  for (const Report::Layer& l : layers) {
    const Place p = place_of(l.name);
    auto it = std::find_if(out.begin(), out.end(), [&](const Row& r) { return r.kind == p.kind; });
    if (it == out.end()) it = out.insert(out.end(), {p.kind, {}});
    it->blocks[p.block].push_back(&l);
  }
  std::stable_sort(out.begin(), out.end(), [](const Row& a, const Row& b) { return order_of(a.kind) < order_of(b.kind); });
  return out;
}

template <class F>
double mean(const std::vector<const Report::Layer*>& layers, F&& value) {
  double sum = 0;
  int64_t count = 0;
  for (const Report::Layer* l : layers) {
    if (const std::optional<double> v = value(*l)) {
      sum += *v;
      ++count;
    }
  }
  return count ? sum / static_cast<double>(count) : std::numeric_limits<double>::quiet_NaN();
}

std::optional<double> got(const Report::Layer& l) { return l.output_error; }
std::optional<double> rtn(const Report::Layer& l) { return l.rtn_output_error; }

template <class F>
LineSeries by_block(const Row& row, std::string name, std::string colour, bool dashed, F&& value) {
  LineSeries out{std::move(name), std::move(colour), dashed, false, {}};
  for (const auto& [block, layers] : row.blocks) {
    if (const double v = mean(layers, value); block >= 0 && !std::isnan(v)) out.points.emplace_back(block, v);
  }
  return out;
}

Row all_layers(const Report& r) {
  Row out{"all", {}};
  for (const Report::Layer& l : r.layers) {
    const Place p = place_of(l.name);
    if (p.kind.rfind("vision ", 0) != 0) out.blocks[p.block].push_back(&l);
  }
  return out;
}

std::string tile(const std::string& value, const std::string& label, const char* tone = "") {
  return fmt::format("<div class=\"tile\"><b class=\"{}\">{}</b><span>{}</span></div>\n", tone, escaped(value), escaped(label));
}

std::string tiles(const Report& r) {
  const double share = r.source_bytes ? 100.0 * static_cast<double>(r.result_bytes) / static_cast<double>(r.source_bytes) : 0;
  std::string t = "<div class=\"tiles\">\n";
  t += tile(size(r.result_bytes), fmt::format("weights, from {} ({:.0f} %)", size(r.source_bytes), share));
  t += tile(fmt::format("{:.3g}", r.bits_per_weight()), "bits per quantized weight, scales included");
  std::vector<const Report::Layer*> all;
  for (const Report::Layer& l : r.layers) all.push_back(&l);
  const double e = mean(all, got), n = mean(all, rtn), w = mean(all, [](const Report::Layer& l) -> std::optional<double> { return l.error; });
  if (!std::isnan(e)) {
    t += tile(figure(e), fmt::format("mean output error of a layer; round-to-nearest {}", figure(n)));
    const double change = n > 0 ? 100 * (e / n - 1) : 0;
    t += tile(fmt::format("{:+.{}f} %", change, std::abs(change) < 10 ? 1 : 0), "error beside round-to-nearest", change <= 0 ? "goodtext" : "badtext");
  } else {
    t += tile(figure(w), "mean relative error of a layer's weights");
  }
  t += tile(fmt::format("{}", r.layers.size()), "layers quantized");
  if (r.verified.logits > 0)
    t += tile("passed", fmt::format("load test: {} tensors, {} logits as the run held them", r.verified.tensors, r.verified.logits), "goodtext");
  else
    t += tile("passed", fmt::format("load test: {} tensors, {} layers decoded", r.verified.tensors, r.verified.layers_decoded), "goodtext");
  return t + "</div>\n";
}

std::string flags(const Report& r) {
  const auto worse = r.worse_than_rtn();
  const bool measured = std::any_of(r.layers.begin(), r.layers.end(), [](const Report::Layer& l) { return l.output_error.has_value(); });
  if (!measured) return "";
  if (worse.empty())
    return "<section><h2 class=\"goodtext\">No layer came out worse than round-to-nearest</h2><p class=\"mute\">On all rows, and on text and vision rows apart.</p></section>\n";
  std::map<std::string, int> layers;
  for (const auto& w : worse) ++layers[w.layer];
  std::string t = fmt::format("<section class=\"flag\"><h2 class=\"badtext\">{} of {} layers came out worse than round-to-nearest</h2><p class=\"mute\">Nothing was undone; consider other bits, "
                              "more data, or leaving them floating (<code>--ignore</code>).</p><details{}><summary>Which</summary><div class=\"scroll\"><table><tr><th>layer</th><th>rows</th>"
                              "<th>error</th><th>round-to-nearest</th><th>more by</th></tr>\n",
                              layers.size(), r.layers.size(), worse.size() <= 8 ? " open" : "");
  for (const auto& w : worse)
    t += fmt::format("<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{:.1f} %</td></tr>\n", escaped(w.layer), w.rows, figure(w.output_error),
                     figure(w.rtn_output_error), w.rtn_output_error > 0 ? 100 * (w.output_error / w.rtn_output_error - 1) : 100.0);
  return t + "</table></div></details></section>\n";
}

std::string ratio_section(const std::vector<Row>& rows) {
  RatioTable t;
  std::map<int, size_t> columns;
  for (const Row& r : rows) {
    for (const auto& [block, layers] : r.blocks) columns[block] = 0;
  }
  for (auto& [block, at] : columns) {
    at = t.columns.size();
    t.columns.push_back(block < 0 ? "-" : std::to_string(block));
  }
  for (const Row& r : rows) {
    t.rows.push_back(r.kind);
    t.cells.emplace_back(columns.size(), std::numeric_limits<double>::quiet_NaN());
    t.tips.emplace_back(columns.size());
    for (const auto& [block, layers] : r.blocks) {
      const double e = mean(layers, got), n = mean(layers, rtn);
      if (!(n > 0)) continue;
      t.cells.back()[columns[block]] = e / n;
      t.tips.back()[columns[block]] = fmt::format("{} of block {}: {}, round-to-nearest {}", r.kind, block, figure(e), figure(n));
    }
  }
  t.x_label = "block";
  return "<section><h2>Output error beside round-to-nearest</h2><p class=\"mute\">A layer's error divided by round-to-nearest's on the same inputs: green is better, red with an "
         "exclamation mark is worse.</p><div class=\"scroll\">" + ratio_table(t) + "</div></section>\n";
}

std::string error_section(const Report& r, const std::vector<Row>& rows) {
  std::string t = "<section><h2>Output error by layer</h2><p class=\"mute\">Relative to the full-precision output, ‖x(W′−W)‖ / ‖xW‖ on calibration rows; dashed: "
                  "round-to-nearest.</p><div class=\"charts\">\n";
  for (const Row& row : rows) {
    LineChart c{.title = row.kind, .x_label = "block", .y_label = "relative error", .width = 250, .height = 150, .series = {}, .marks = {}};
    c.series.push_back(by_block(row, "", "sr", true, rtn));
    c.series.push_back(by_block(row, "", "s0", false, got));
    if (!c.series.back().points.empty()) t += line_chart(c);
  }
  t += "</div></section>\n";
  auto part = [](auto member, auto error) { return [=](const Report::Layer& l) -> std::optional<double> { return l.*member ? std::optional((*(l.*member)).*error) : std::nullopt; }; };
  const Row all = all_layers(r);
  LineChart c{.title = "Mean over the layers of a block", .x_label = "block", .y_label = "relative error", .width = 640, .height = 250, .series = {}, .marks = {}};
  c.series.push_back(by_block(all, r.method + ", vision", "s1", false, part(&Report::Layer::vision, &Report::Kind::output_error)));
  c.series.push_back(by_block(all, "nearest, vision", "s1", true, part(&Report::Layer::vision, &Report::Kind::rtn_output_error)));
  c.series.push_back(by_block(all, r.method + ", text", "s2", false, part(&Report::Layer::text, &Report::Kind::output_error)));
  c.series.push_back(by_block(all, "nearest, text", "s2", true, part(&Report::Layer::text, &Report::Kind::rtn_output_error)));
  std::erase_if(c.series, [](const LineSeries& s) { return s.points.empty(); });
  if (c.series.empty()) return t;
  return t + "<section><h2>Vision and text</h2><p class=\"mute\">The same error on rows of picture tokens and on all other rows, from a sample of rows of each kind.</p><div class=\"charts\">" +
         line_chart(c) + "</div></section>\n";
}

// Of layers without activations: errors of weights only.
std::string weight_section(const std::vector<Row>& rows) {
  std::string t = "<section><h2>Weight error by layer</h2><p class=\"mute\">‖W′−W‖ / ‖W‖. This method looked at no activations; with <code>--method gptq</code> or "
                  "<code>awq</code> the report shows what rounding does to outputs.</p><div class=\"charts\">\n";
  for (const Row& row : rows) {
    LineChart c{.title = row.kind, .x_label = "block", .y_label = "relative error", .width = 250, .height = 150, .series = {}, .marks = {}};
    c.series.push_back(by_block(row, "", "s0", false, [](const Report::Layer& l) -> std::optional<double> { return l.error; }));
    if (!c.series.back().points.empty()) t += line_chart(c);
  }
  return t + "</div></section>\n";
}

std::map<std::string, std::vector<const Report::Scale*>> groups_of(const Report& r) {
  std::map<std::string, std::vector<const Report::Scale*>> out;
  for (const Report::Scale& s : r.scales) out[s.group].push_back(&s);
  return out;
}

std::string scale_section(const Report& r) {
  if (r.scales.empty()) return "";
  std::string curves;
  LineChart ratios{.title = "Chosen ratio", .x_label = "block", .y_label = "ratio", .width = 520, .height = 220, .series = {}, .marks = {}};
  LineChart rho{.title = "Weight of vision tokens (rho)", .x_label = "block", .y_label = "rho", .width = 520, .height = 220, .log_y = true, .series = {}, .marks = {}};
  size_t n = 0;
  std::map<int, double> rhos;
  for (const auto& [group, scales] : groups_of(r)) {
    LineSeries chosen{group, fmt::format("s{}", n++ % 6), false, false, {}};
    LineChart c{.title = group, .x_label = "ratio", .y_label = "loss beside no scaling", .width = 330, .height = 180, .from_zero = false, .series = {}, .marks = {}, .level = 1};
    for (const Report::Scale* s : scales) {
      const int block = place_of(s->block).block;
      chosen.points.emplace_back(block, s->ratio);
      if (s->rho) rhos[block] = *s->rho;
      if (s->losses.empty() || !(s->losses.front() > 0)) continue;
      LineSeries line{"", "s0", false, true, {}};
      for (size_t i = 0; i < s->losses.size(); ++i) line.points.emplace_back(static_cast<double>(i) / static_cast<double>(s->losses.size()), std::min(2.0, s->losses[i] / s->losses.front()));
      const size_t best = static_cast<size_t>(std::llround(s->ratio * static_cast<double>(s->losses.size())));
      if (best < line.points.size()) c.marks.push_back(line.points[best]);
      c.series.push_back(std::move(line));
    }
    ratios.series.push_back(std::move(chosen));
    if (!c.series.empty()) curves += line_chart(c);
  }
  std::string t = "<section><h2>Scales</h2><p class=\"mute\">The ratio is the exponent of the channels' mean |x|; 0 is round-to-nearest without scaling. "
                  "Saved in <code>calibration/scales.safetensors</code>; <code>--scales</code> takes them over.</p><div class=\"charts\">" + line_chart(ratios);
  if (!rhos.empty()) {
    rho.series.push_back({"", "s1", false, false, {rhos.begin(), rhos.end()}});
    t += line_chart(rho);
  }
  t += "</div>";
  if (!curves.empty())
    t += "<p class=\"mute\">What the search saw: the group's loss at each ratio, divided by the loss without scaling; a line per block, a dot where it settled (above 2 cut off).</p><div class=\"charts\">" +
         curves + "</div>";
  return t + "</section>\n";
}

std::string outlier_section(const Report& r, const std::vector<Row>& rows) {
  LineChart c{.title = "Largest channel over the median channel", .x_label = "block", .y_label = "largest / median", .width = 640, .height = 260, .log_y = true, .series = {}, .marks = {}};
  std::vector<const Report::Layer*> inputs;
  auto same = [](const Report::Layer* a, const Report::Layer* b) { return a->input->top == b->input->top && a->input->median == b->input->median; };
  for (const Row& row : rows) {
    LineSeries s{"input of " + row.kind, fmt::format("s{}", c.series.size() % 6), false, false, {}};
    for (const auto& [block, layers] : row.blocks) {
      const Report::Layer* l = layers.front();
      if (!l->input || !(l->input->median > 0) || std::any_of(inputs.begin(), inputs.end(), [&](const auto* i) { return same(i, l); })) continue;
      inputs.push_back(l);
      s.points.emplace_back(block, l->input->largest / l->input->median);
    }
    if (!s.points.empty()) c.series.push_back(std::move(s));
  }
  if (inputs.empty()) return "";
  std::sort(inputs.begin(), inputs.end(), [](const auto* a, const auto* b) { return a->input->largest * b->input->median > b->input->largest * a->input->median; });
  std::string t = "<section><h2>Outlier channels</h2><p class=\"mute\">Largest |x| of a layer's input channels over all rows. Channels far above the median are what makes activations and "
                  "weights hard to round.</p><div class=\"charts\">" + line_chart(c) + "</div><div class=\"scroll\"><table><tr><th>input of</th><th>median</th><th>largest</th><th>ratio</th><th>above 10 &times; median</th>"
                  "<th>largest channels</th></tr>\n";
  for (size_t i = 0; i < std::min<size_t>(8, inputs.size()); ++i) {
    const Report::Input& in = *inputs[i]->input;
    std::string top;
    for (const auto& [channel, value] : in.top) top += fmt::format("{}{} ({})", top.empty() ? "" : ", ", channel, figure(value));
    t += fmt::format("<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{:.0f}</td><td>{}</td><td>{}</td></tr>\n", escaped(inputs[i]->name), figure(in.median), figure(in.largest),
                     in.largest / in.median, in.outliers, top);
  }
  return t + "</table></div></section>\n";
}

std::string size_section(const Report& r) {
  Stacked before{"before", size(r.source_bytes), {}}, after{"after", size(r.result_bytes), {}};
  std::string rows;
  for (size_t i = 0; i < r.roles.size(); ++i) {
    const Report::Role& role = r.roles[i];
    before.parts.emplace_back(role.role + ": " + size(role.source_bytes), static_cast<double>(role.source_bytes));
    after.parts.emplace_back(role.role + ": " + size(role.result_bytes), static_cast<double>(role.result_bytes));
    rows += fmt::format("<tr><td><span class=\"key s{}\"></span>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", i % 8, escaped(role.role), role.quantized_layers,
                        role.kept_layers, role.kept_tensors, size(role.source_bytes), size(role.result_bytes));
  }
  return "<section><h2>Size by role</h2>" + stacked({before, after}) +
         "<div class=\"scroll\"><table><tr><th>role</th><th>layers quantized</th><th>layers kept</th><th>tensors kept</th><th>before</th><th>after</th></tr>\n" + rows +
         "</table></div></section>\n";
}

std::string list(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string t = "<table>";
  for (const auto& [name, value] : pairs) t += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", escaped(name), value);
  return t + "</table>";
}

std::string data_section(const Report& r) {
  std::vector<std::pair<std::string, std::string>> facts;
  if (r.data) {
    facts.emplace_back("samples", fmt::format("{}{}", r.data->samples, r.data->bundled ? " of the bundled set" : ""));
    facts.emplace_back("tokens", std::to_string(r.data->tokens));
    facts.emplace_back("of pictures", std::to_string(r.data->vision_tokens));
    facts.emplace_back("of answers", std::to_string(r.data->answer_tokens));
    facts.emplace_back("SHA-256", "<code>" + r.data->hash.substr(0, 16) + "</code>");
  }
  if (!r.scales_reused.empty()) facts.emplace_back("scales taken over, SHA-256", "<code>" + r.scales_reused.substr(0, 16) + "</code>");
  return "<section><h2>Calibration data</h2>" + (facts.empty() ? "<p class=\"mute\">None: this method looks at weights only.</p>" : list(facts)) + "</section>\n";
}

std::string run_section(const Report& r) {
  std::vector<Bar> times;
  for (const auto& [phase, seconds] : r.phase_seconds) times.push_back({phase, human_seconds(seconds), "s0", seconds});
  std::sort(times.begin(), times.end(), [](const Bar& a, const Bar& b) { return a.length > b.length; });
  return "<section><h2>This run</h2><p class=\"mute\">Differs from run to run" +
         std::string(r.resumed_units ? fmt::format("; {} of {} blocks were done by an earlier, interrupted one", r.resumed_units, r.units) : "") + ".</p>" + bars(times) +
         list({{"time in all", human_seconds(r.seconds)}, {"peak memory", size(r.peak_rss)}, {"memory expected", size(r.expected_ram + r.quick_ram)}}) + "</section>\n";
}

std::string layer_section(const Report& r) {
  auto number = [](const std::optional<double>& v) { return v ? figure(*v) : std::string(); };
  auto part = [&](const std::optional<Report::Kind>& k, bool nearest) { return k ? figure(nearest ? k->rtn_output_error : k->output_error) : std::string(); };
  std::string t = "<section><details><summary>All layers</summary><div class=\"scroll\"><table><tr><th>layer</th><th>weights</th><th>output</th><th>nearest</th><th>vision</th><th>nearest</th>"
                  "<th>text</th><th>nearest</th></tr>\n";
  for (const Report::Layer& l : r.layers)
    t += fmt::format("<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", escaped(l.name), figure(l.error),
                     number(l.output_error), number(l.rtn_output_error), part(l.vision, false), part(l.vision, true), part(l.text, false), part(l.text, true));
  return t + "</table></div></details></section>\n";
}

std::string notes_section(const Report& r) {
  if (r.warnings.empty()) return "";
  std::string t = "<section><h2>Notes</h2><ul>";
  for (const std::string& w : r.warnings) t += "<li>" + escaped(w) + "</li>\n";
  return t + "</ul></section>\n";
}

}  // namespace

std::string report_html(const QuantizeReport& r) {
  const std::string bits = fmt::format("{}-bit weights, {}, {}{}", r.w_bits, r.w_group > 0 ? fmt::format("groups of {}", r.w_group) : "one scale per row",
                                       r.symmetric ? "symmetric" : "asymmetric", spoken_activations(r.a_bits, r.a_static));
  const std::vector<Row> rows = rows_of(r.layers);
  const bool measured = std::any_of(r.layers.begin(), r.layers.end(), [](const Report::Layer& l) { return l.output_error.has_value(); });
  std::string t = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                  "<link rel=\"icon\" href=\"data:,\"><title>" + escaped(r.source + ", " + r.method) + "</title><style>" + kStyle + "</style></head>\n<body><main>\n";
  t += fmt::format("<h1>{}</h1><div class=\"mute\">quantized by {}: {}; written as {}</div>\n", escaped(r.source), escaped(r.method), bits, escaped(r.format));
  t += tiles(r) + flags(r);
  if (measured)
    t += ratio_section(rows) + error_section(r, rows);
  else if (!r.layers.empty())
    t += weight_section(rows);
  t += scale_section(r) + outlier_section(r, rows) + size_section(r);
  t += "<div class=\"two\">" + data_section(r) + run_section(r) + "</div>\n" + notes_section(r) + layer_section(r);
  return t + "</main></body></html>\n";
}

}  // namespace statera
