// What benchmarks have in common: contenders in turn (A B A B …), so that what disturbs the machine disturbs all of
// them; medians, quartiles, and ratios of the same round; a table to read and JSON to draw.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

// `round` does it once, and returns a figure for each of the group's measures. Goals, 0: none; of a peer that stands
// beside what is ours, the first contender: how many times as much it takes.
struct Contender {
  std::string name;
  std::function<std::vector<double>()> round;
  std::vector<double> goals = {};  // at most, for each measure
  double atLeastTimes = 0;         // the first contender's, in the first measure
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
  double goal, times;
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

// A second thread: in a process that has but one, glibc's mutexes cost less than they do in any real one.
class Idler {
 public:
  Idler();
  ~Idler();

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

// CPU time of this thread: that others use the processor too is not in it (that they use its caches is).
double threadNs();
// The value below which `part` of them lie.
double quantile(std::vector<double> values, double part);
// How many bytes of memory f's doing leaves this process with: in a child, which ends with it.
double bytesAfter(const std::function<void()>& f);

}  // namespace bench
