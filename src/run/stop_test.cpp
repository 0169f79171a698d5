// Stop strings across pieces.
#include "run/stop.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace statera {
namespace {

TEST(Stop, TextIsHeldBackOnlyWhileItMayBecomeAStop) {
  StopMatcher m({"###", "END"});
  EXPECT_EQ(m.feed("one #"), "one ");
  EXPECT_EQ(m.feed("# two"), "## two");
  EXPECT_EQ(m.feed(" E"), " ");
  EXPECT_EQ(m.feed("N"), "");
  EXPECT_EQ(m.feed("Dless"), "");
  EXPECT_TRUE(m.stopped());
  EXPECT_EQ(m.match(), "END");
  EXPECT_EQ(m.feed("more"), "");
  EXPECT_EQ(m.flush(), "");
}

TEST(Stop, AMatchAcrossPiecesIsCutWithWhatFollows) {
  StopMatcher m({"\nUser:"});
  EXPECT_EQ(m.feed("Hello\nUs"), "Hello");
  EXPECT_EQ(m.feed("er: hi"), "");
  EXPECT_TRUE(m.stopped());
}

TEST(Stop, TheMatchThatEndsFirstCounts) {
  StopMatcher m({"abcd", "bc"});
  EXPECT_EQ(m.feed("xabcd"), "xa");
  EXPECT_EQ(m.match(), "bc");
  StopMatcher n({"c", "abc"});
  EXPECT_EQ(n.feed("xabc"), "x");
}

TEST(Stop, APrefixThatRepeatsInsideItselfIsFound) {
  StopMatcher m({"aab"});
  EXPECT_EQ(m.feed("aa"), "");
  EXPECT_EQ(m.feed("a"), "a");
  EXPECT_EQ(m.feed("b"), "");
  EXPECT_TRUE(m.stopped());
}

TEST(Stop, TheEndGivesOutWhatWasHeld) {
  StopMatcher m({"END"});
  EXPECT_EQ(m.feed("the EN"), "the ");
  EXPECT_EQ(m.flush(), "EN");
  EXPECT_FALSE(m.stopped());
  EXPECT_THROW(StopMatcher({""}), Error);
}

}  // namespace
}  // namespace statera
