// Charts of the report as inline SVG: lines, a table of shaded cells, bars. Colours are classes (s0 to s5, good, bad, ...) that the page's
// style sheet gives values for light and dark; every mark carries its figure as a tooltip.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statera {

// &, <, > and quotes as entities.
std::string escaped(std::string_view text);
// "0.0123", "1.2e-05": a figure as a person reads it.
std::string figure(double value);

struct LineSeries {
  std::string name, colour;  // colour: a class
  bool dashed = false, thin = false;
  std::vector<std::pair<double, double>> points;
};
struct LineChart {
  std::string title, x_label, y_label;
  int width = 340, height = 190;
  bool log_y = false, from_zero = true;  // from_zero: of linear scales
  std::vector<LineSeries> series;
  std::vector<std::pair<double, double>> marks;  // filled dots over the lines
  double level = 0;                              // a horizontal line there, when not 0
};
std::string line_chart(const LineChart& chart);

// Ratios around 1: below is good, above bad; NaN: nothing there. cells[row][column].
struct RatioTable {
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> cells;
  std::vector<std::vector<std::string>> tips;
  std::string x_label;
};
std::string ratio_table(const RatioTable& table);

struct Bar {
  std::string label, value, colour;
  double length = 0;  // in units of the longest
};
std::string bars(const std::vector<Bar>& all);
// One bar per line, cut into (label, amount, class) parts; lines share the scale.
struct Stacked {
  std::string label, value;
  std::vector<std::pair<std::string, double>> parts;  // tooltip, amount; coloured s0, s1, ... by position
};
std::string stacked(const std::vector<Stacked>& lines);

}  // namespace statera
