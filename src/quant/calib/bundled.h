// The calibration set inside the program (examples/calibration and a few pictures of examples/pictures), for runs without data.
// The bytes are put into a generated source by cmake/embed.cmake.
#pragma once

#include <string>
#include <string_view>

namespace statera {

// A file by its name in the set ("text.txt", "messages.jsonl", "pictures/chart.png"). An unknown name is a Bug.
std::string_view bundled_file(std::string_view name);

// The messages with each picture as a data: URI, so that no folder is needed.
std::string bundled_messages();

}  // namespace statera
