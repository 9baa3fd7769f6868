// What benchmarks have in common: contenders in turn (A B A B …), so that what disturbs the machine disturbs all of
// them; medians, quartiles, and ratios of the same round; a table to read and JSON to draw.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace bench {

// `round` does it once, and returns a figure for each of the group's measures; of `goals`, 0 is none.
struct Contender {
  std::string name;
  std::function<std::vector<double>()> round;
  std::vector<double> goals = {};  // at most
};

// Several ways of doing the same. Ratios are to the first.
struct Group {
  std::string name, unit;
  std::vector<std::string> measures;
  std::vector<Contender> contenders;
};

// What cannot be run here, and the line that installs it.
struct Skipped {
  std::string name, install;
};

struct Row {
  std::string name;
  double goal;
  std::vector<double> rounds;
};

class Report {
 public:
  // Of the groups, those whose name has `only` in it.
  Report(std::string name, int rounds, std::string only)
      : name_(std::move(name)), rounds_(rounds), only_(std::move(only)) {}

  void run(const Group& group);
  void skip(const Skipped& peer);
  // Writes all that was run. False, with a message on stderr, if the file cannot be written.
  bool write(const std::string& path) const;

 private:
  struct Done {
    std::string name, unit;
    std::vector<Row> rows;
  };
  static void print(const Done& done);

  std::string name_;
  int rounds_;
  std::string only_;
  std::vector<Done> groups_;
  std::vector<Skipped> skipped_;
};

// [--quick] [--only GROUP] [--json FILE]; anything else ends the program with the usage. `more`: further arguments that
// it takes, each with a value, and what is done with that.
struct Arguments {
  using More = std::vector<std::pair<std::string, std::function<void(const std::string&)>>>;
  Arguments(const char* program, int argc, char** argv, const More& more = {});
  bool quick = false;
  std::string json, only;
};

// CPU time of this thread: that others use the processor too is not in it (that they use its caches is).
double threadNs();
// The value below which `part` of them lie.
double quantile(std::vector<double> values, double part);
// How many bytes of memory f's doing leaves this process with: in a child, which ends with it.
double bytesAfter(const std::function<void()>& f);

}  // namespace bench
