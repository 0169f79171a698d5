// The report's page: complete in itself, honest about what got worse, and the parts that belong to one run apart.
#include "quant/report_html.h"

#include <gtest/gtest.h>

#include "quant/report_svg.h"
#include "quant/test_output.h"

namespace statera {
namespace {

QuantizeReport example() {
  QuantizeReport r;
  r.method = "awq";
  r.source = "model <b>&\"";
  r.format = "compressed-tensors";
  r.w_bits = 4;
  r.w_group = 128;
  r.source_bytes = 4000;
  r.result_bytes = 1500;
  r.quantized_weights = 1000;
  r.quantized_bytes = 516;
  r.units = 3;
  r.roles = {{"mlp", 2, 0, 0, 3000, 600}, {"norm", 0, 0, 3, 1000, 900}};
  for (int block : {0, 1}) {
    for (const char* kind : {"down_proj", "up_proj"}) {
      QuantizeReport::Layer l;
      l.name = "model.layers." + std::to_string(block) + ".mlp." + kind;
      l.error = 0.1;
      l.output_error = 0.08;
      l.rtn_output_error = 0.1;
      l.text = QuantizeReport::Kind{0.08, 0.1, 200, 900};
      l.vision = QuantizeReport::Kind{0.07, 0.1, 100, 100};
      l.input = QuantizeReport::Input{0.5, 40, 3, {{7, 40.0}, {2, 9.0}}};
      r.layers.push_back(l);
    }
    r.scales.push_back({"model.layers." + std::to_string(block), "up_proj", {"x"}, 0.25, 0.5, 2, {4, 3, 5, 6}, 0.3});
  }
  r.data = QuantizeReport::Data{std::string(64, 'a'), false, 8, 1000, 100, 50};
  r.verified.tensors = 12;
  r.verified.logits = 40;
  r.phase_seconds = {{"copy", 1.5}};
  r.seconds = 3;
  return r;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

TEST(ReportHtml, NeedsNothingFromOutsideAndRunsNothing) {
  const std::string page = report_html(example());
  for (const char* part : {"<script", "http:", "https:", "src=", "@import", "url(", "onload"}) EXPECT_FALSE(has(page, part)) << part;
  EXPECT_TRUE(has(page, "prefers-color-scheme:dark"));
  EXPECT_FALSE(has(page, "nan"));
  EXPECT_FALSE(has(page, "inf"));
  EXPECT_TRUE(has(page, "model &lt;b&gt;&amp;&quot;"));
}

TEST(ReportHtml, WhatDidWorseThanRoundToNearestIsSaidOnTop) {
  QuantizeReport r = example();
  EXPECT_TRUE(r.worse_than_rtn().empty());
  EXPECT_TRUE(has(report_html(r), "No layer came out worse"));
  r.layers[1].vision->output_error = 0.2;  // better over all, worse on pictures
  r.layers[2].output_error = 0.11;
  const auto worse = r.worse_than_rtn();
  ASSERT_EQ(worse.size(), 2u);
  EXPECT_EQ(worse[0].layer, "model.layers.0.mlp.up_proj");
  EXPECT_EQ(worse[0].rows, "vision");
  EXPECT_EQ(worse[1].rows, "all");
  const std::string page = report_html(r);
  EXPECT_TRUE(has(page, "2 of 4 layers came out worse than round-to-nearest"));
  EXPECT_LT(page.find("came out worse"), page.find("Output error"));
  EXPECT_TRUE(has(page, "class=\"cell bad\""));
  const Json record = r.record();
  EXPECT_EQ(record.at("worse_than_rtn").as_array().size(), 2u);
}

TEST(ReportHtml, ShowsEverySectionThatHasFigures) {
  const std::string page = report_html(example());
  for (const char* part : {"Vision and text", "Chosen ratio", "(rho)", "loss beside no scaling", "Outlier channels", "Size by role", "Calibration data", "7 (40.00)"})
    EXPECT_TRUE(has(page, part)) << part;
  QuantizeReport plain = example();
  plain.data.reset();
  plain.scales.clear();
  for (auto& l : plain.layers) l = {.name = l.name, .error = 0.1, .output_error = {}, .rtn_output_error = {}, .text = {}, .vision = {}, .input = {}};
  const std::string less = report_html(plain);
  for (const char* part : {"Vision and text", "Chosen ratio", "Outlier channels", "came out worse", "nan"}) EXPECT_FALSE(has(less, part)) << part;
  EXPECT_TRUE(has(less, "Weight error by layer"));
}

TEST(Report, TimesAndFoldersAreApartFromTheRecord) {
  QuantizeReport a = example(), b = example();
  b.seconds = 99;
  b.out = "elsewhere";
  b.resumed_units = 2;
  b.peak_rss = 7;
  b.phase_seconds = {{"copy", 9.0}};
  EXPECT_EQ(a.record().dump(), b.record().dump());
  EXPECT_NE(a.to_json().dump(), b.to_json().dump());
  EXPECT_EQ(without_this_run("report.json", a.to_json().dump()), without_this_run("report.json", b.to_json().dump()));
  EXPECT_NE(report_html(a), report_html(b));
  EXPECT_EQ(without_this_run("report.html", report_html(a)), without_this_run("report.html", report_html(b)));
}

TEST(ReportSvg, ChartsOfOnePointOfNothingAndOfZerosAreWellFormed) {
  for (const bool log : {false, true}) {
    LineChart c{.title = "a<b", .x_label = "x", .y_label = "y", .log_y = log, .series = {}, .marks = {}};
    EXPECT_TRUE(has(line_chart(c), "a&lt;b"));
    c.series.push_back({"s", "s0", false, false, {{3, 0.0}}});
    EXPECT_FALSE(has(line_chart(c), "nan")) << line_chart(c);
    c.series.push_back({"t", "s1", true, true, {{0, 1e-9}, {5, 1e9}}});
    const std::string svg = line_chart(c);
    EXPECT_FALSE(has(svg, "nan"));
    EXPECT_FALSE(has(svg, "inf"));
  }
  EXPECT_EQ(figure(0.01234), "0.0123");
  EXPECT_EQ(figure(0), "0");
}

}  // namespace
}  // namespace statera
