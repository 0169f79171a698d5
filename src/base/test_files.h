// What tests share: a temporary folder and files of given text.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

namespace statera {

// A fresh folder, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "statera_XXXXXX").string();
    if (!::mkdtemp(pattern.data())) std::abort();
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  operator const std::string&() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The same in every process of these tests, for those that run themselves anew; another one in another checkout, whose tests may run beside them.
inline std::string test_folder(const std::string& name) {
  const auto here = std::hash<std::string>()(std::filesystem::current_path().string());
  const auto path = std::filesystem::temp_directory_path() / (name + std::to_string(here));
  std::filesystem::create_directories(path);
  return path.string();
}

inline void write_text(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace statera
