// Scales, ticks and marks.
#include "quant/report_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace statera {
namespace {

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  std::vector<double> ticks;
  // 0 at low, 1 at high.
  double at(double v) const {
    if (log) return (std::log10(std::max(v, low)) - std::log10(low)) / (std::log10(high) - std::log10(low));
    return (v - low) / (high - low);
  }
};

Axis linear_axis(double low, double high, int wanted) {
  if (!(high > low)) high = low + (low != 0 ? std::abs(low) : 1);
  const double rough = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (double m : {1.0, 2.0, 5.0, 10.0}) {
    step = m * power;
    if (step >= rough * 0.999) break;
  }
  Axis out{std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, false, {}};
  for (double t = out.low; t <= out.high + step / 2; t += step) out.ticks.push_back(std::abs(t) < step * 1e-6 ? 0 : t);
  return out;
}

Axis log_axis(double low, double high) {
  const double from = std::floor(std::log10(low) + 1e-9), to = std::max(from + 1, std::ceil(std::log10(high) - 1e-9));
  Axis out{std::pow(10, from), std::pow(10, to), true, {}};
  if (to - from < 1.5) {  // a single decade gets ticks inside it
    for (double m : {1.0, 2.0, 5.0, 10.0}) out.ticks.push_back(m * out.low);
    return out;
  }
  const double stride = std::max(1.0, std::ceil((to - from) / 5));
  for (double e = from; e <= to + 0.5; e += stride) out.ticks.push_back(std::pow(10, e));
  return out;
}

Axis y_axis(const LineChart& c) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const LineSeries& s : c.series) {
    for (const auto& [x, y] : s.points) {
      if (c.log_y && !(y > 0)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  if (c.level != 0) {
    low = std::min(low, c.level);
    high = std::max(high, c.level);
  }
  if (!(high >= low)) low = high = 1;
  if (c.log_y) return log_axis(low, high);
  return linear_axis(c.from_zero ? std::min(0.0, low) : low, high, 4);
}

Axis x_axis(const LineChart& c) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  bool whole = true;
  for (const LineSeries& s : c.series) {
    for (const auto& [x, y] : s.points) {
      low = std::min(low, x);
      high = std::max(high, x);
      whole &= x == std::floor(x);
    }
  }
  if (!(high >= low)) low = high = 0;
  if (high == low) return {low - 0.5, high + 0.5, false, {low}};
  Axis out = linear_axis(low, high, 6);
  if (whole) std::erase_if(out.ticks, [](double t) { return t != std::floor(t); });
  std::erase_if(out.ticks, [&](double t) { return t > high + 1e-9 || t < low - 1e-9; });
  out.low = low;
  out.high = high;
  return out;
}

std::string tick_text(double v) { return v != 0 && (std::abs(v) >= 1e5 || std::abs(v) < 1e-3) ? fmt::format("{:.0e}", v) : fmt::format("{:g}", v); }

std::string opening(int width, int height, const std::string& label) {
  return fmt::format("<svg viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" aria-label=\"{2}\">\n", width, height, escaped(label));
}

std::string legend(const LineChart& c, int left, int top) {
  std::string out;
  int x = left;
  for (const LineSeries& s : c.series) {
    if (s.name.empty()) continue;
    out += fmt::format("<path class=\"line {}{}\" d=\"M{} {}h18\"/><text class=\"small\" x=\"{}\" y=\"{}\">{}</text>\n", s.colour, s.dashed ? " dash" : "", x, top,
                       x + 23, top + 4, escaped(s.name));
    x += 33 + static_cast<int>(6.2 * static_cast<double>(s.name.size()));
  }
  return out;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (char ch : text) {
    switch (ch) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += ch;
    }
  }
  return out;
}

std::string figure(double v) {
  const double a = std::abs(v);
  if (v == 0) return "0";
  if (a < 1e-3 || a >= 1e6) return fmt::format("{:.1e}", v);
  if (a < 1) return fmt::format("{:.4f}", v);
  return a < 100 ? fmt::format("{:.2f}", v) : fmt::format("{:.0f}", v);
}

std::string line_chart(const LineChart& c) {
  const bool named = std::any_of(c.series.begin(), c.series.end(), [](const LineSeries& s) { return !s.name.empty(); });
  const int left = 46, right = 12, top = named ? 44 : 26, bottom = 34;
  const double w = c.width - left - right, h = c.height - top - bottom;
  const Axis xs = x_axis(c), ys = y_axis(c);
  auto px = [&](double x) { return left + w * xs.at(x); };
  auto py = [&](double y) { return top + h * (1 - ys.at(y)); };
  std::string out = opening(c.width, c.height, c.title + ": " + c.y_label + " by " + c.x_label);
  out += fmt::format("<text class=\"head\" x=\"4\" y=\"14\">{}</text>\n", escaped(c.title));
  if (named) out += legend(c, 4, 29);
  for (double t : ys.ticks)
    out += fmt::format("<path class=\"grid\" d=\"M{} {:.1f}h{:.1f}\"/><text class=\"small end\" x=\"{}\" y=\"{:.1f}\">{}</text>\n", left, py(t), w, left - 6,
                       py(t) + 4, tick_text(t));
  for (double t : xs.ticks) out += fmt::format("<text class=\"small mid\" x=\"{:.1f}\" y=\"{}\">{}</text>\n", px(t), c.height - bottom + 15, tick_text(t));
  out += fmt::format("<text class=\"small mid\" x=\"{:.1f}\" y=\"{}\">{}</text>\n", left + w / 2, c.height - 4, escaped(c.x_label));
  if (c.level != 0) out += fmt::format("<path class=\"level\" d=\"M{} {:.1f}h{:.1f}\"/>\n", left, py(c.level), w);
  for (const LineSeries& s : c.series) {
    std::string path, dots;
    for (const auto& [x, y] : s.points) {
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px(x), py(y));
      if (!s.thin)
        dots += fmt::format("<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"><title>{}{} {}: {}</title></circle>\n", s.colour, px(x), py(y),
                            s.points.size() > 40 ? 1.6 : 2.6, escaped(s.name.empty() ? c.y_label + ", " : s.name + ", "), escaped(c.x_label), tick_text(x), figure(y));
    }
    if (s.points.size() > 1) out += fmt::format("<path class=\"line {}{}{}\" d=\"{}\"/>\n", s.colour, s.dashed ? " dash" : "", s.thin ? " thin" : "", path);
    if (!s.dashed) out += dots;
  }
  for (const auto& [x, y] : c.marks)
    out += fmt::format("<circle class=\"mark\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>{}: {}</title></circle>\n", px(x), py(y), tick_text(x), figure(y));
  return out + "</svg>\n";
}

std::string ratio_table(const RatioTable& t) {
  size_t longest = 4;
  for (const auto& r : t.rows) longest = std::max(longest, r.size());
  const int left = 14 + static_cast<int>(6.6 * static_cast<double>(longest)), cell_h = 24;
  const int columns = static_cast<int>(t.columns.size()), cell_w = std::clamp(columns ? 860 / columns : 50, 14, 64);
  const bool texts = cell_w >= 38;
  const int width = left + cell_w * columns + 12, height = cell_h * static_cast<int>(t.rows.size()) + 44;
  std::string out = opening(width, height, "error relative to round-to-nearest");
  for (size_t r = 0; r < t.rows.size(); ++r) {
    const int y = 4 + cell_h * static_cast<int>(r);
    out += fmt::format("<text class=\"end\" x=\"{}\" y=\"{}\">{}</text>\n", left - 8, y + 16, escaped(t.rows[r]));
    for (size_t c = 0; c < t.columns.size(); ++c) {
      const double v = t.cells[r][c];
      if (std::isnan(v)) continue;
      const bool bad = v > 1 + 1e-4;
      const double strength = bad ? std::min(0.9, 0.15 + 2 * (v - 1)) : std::clamp(0.85 * (1 - v), 0.04, 0.85);
      const int x = left + cell_w * static_cast<int>(c);
      out += fmt::format("<g><title>{}</title><rect class=\"cell {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\" fill-opacity=\"{:.2f}\"/>", escaped(t.tips[r][c]),
                         bad ? "bad" : "good", x + 1, y + 1, cell_w - 2, cell_h - 2, strength);
      if (texts) out += fmt::format("<text class=\"mid small ink\" x=\"{}\" y=\"{}\">{:.{}f}{}</text>", x + cell_w / 2, y + 16, v, bad && v < 1.005 ? 3 : 2, bad ? " !" : "");
      out += "</g>\n";
    }
  }
  const int base = 4 + cell_h * static_cast<int>(t.rows.size()), stride = std::max(1, 28 / cell_w + (cell_w < 28));
  for (int c = 0; c < columns; c += stride)
    out += fmt::format("<text class=\"small mid\" x=\"{}\" y=\"{}\">{}</text>\n", left + cell_w * c + cell_w / 2, base + 14, escaped(t.columns[static_cast<size_t>(c)]));
  out += fmt::format("<text class=\"small mid\" x=\"{}\" y=\"{}\">{}</text>\n", left + cell_w * columns / 2, base + 32, escaped(t.x_label));
  return out + "</svg>\n";
}

std::string bars(const std::vector<Bar>& all) {
  double longest = 0;
  for (const Bar& b : all) longest = std::max(longest, b.length);
  const int left = 150, room = 300, width = left + room + 110, height = 24 * static_cast<int>(all.size()) + 6;
  std::string out = opening(width, height, "bars");
  int y = 4;
  for (const Bar& b : all) {
    const double length = longest > 0 ? std::max(1.0, room * b.length / longest) : 1;
    out += fmt::format("<text class=\"end\" x=\"{}\" y=\"{}\">{}</text><rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"14\" rx=\"3\"/>"
                       "<text x=\"{:.1f}\" y=\"{}\">{}</text>\n",
                       left - 8, y + 12, escaped(b.label), b.colour, left, y, length, left + length + 7, y + 12, escaped(b.value));
    y += 24;
  }
  return out + "</svg>\n";
}

std::string stacked(const std::vector<Stacked>& lines) {
  double longest = 0;
  for (const Stacked& s : lines) {
    double sum = 0;
    for (const auto& [tip, amount] : s.parts) sum += amount;
    longest = std::max(longest, sum);
  }
  const int left = 70, room = 440, width = left + room + 100, height = 34 * static_cast<int>(lines.size()) + 4;
  std::string out = opening(width, height, "size by role");
  int y = 2;
  for (const Stacked& s : lines) {
    out += fmt::format("<text class=\"end\" x=\"{}\" y=\"{}\">{}</text>\n", left - 8, y + 18, escaped(s.label));
    double x = left;
    for (size_t i = 0; i < s.parts.size(); ++i) {
      const double length = longest > 0 ? room * s.parts[i].second / longest : 0;
      if (length > 0)
        out += fmt::format("<rect class=\"bar s{}\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"24\"><title>{}</title></rect>\n", i % 8, x, y, std::max(0.5, length - 1),
                           escaped(s.parts[i].first));
      x += length;
    }
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x + 7, y + 17, escaped(s.value));
    y += 34;
  }
  return out + "</svg>\n";
}

}  // namespace statera
