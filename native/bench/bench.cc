#include "bench/bench.h"

#include <malloc.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

namespace bench {

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string numbers(const std::vector<double>& values) {
  std::string out;
  char text[32];
  for (double value : values) {
    std::snprintf(text, sizeof(text), "%s%.6g", out.empty() ? "" : ", ", value);
    out += text;
  }
  return "[" + out + "]";
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string machine() {
  utsname name{};
  uname(&name);
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  return "{\"processor\": " + quoted(processor()) +
         ", \"cores\": " + std::to_string(std::thread::hardware_concurrency()) +
         ", \"memory\": " + std::to_string(static_cast<long long>(pages)) +
         ", \"system\": " + quoted(std::string(name.sysname) + " " + name.release + " " + name.machine) +
         ", \"compiler\": " + quoted(__VERSION__) + "}";
}

// The median of each round's own ratio: what slowed one contender down there slowed the other down too. 0: there is
// nothing to compare with.
double ratioTo(const std::vector<double>& rounds, const std::vector<double>& base) {
  std::vector<double> out;
  for (size_t i = 0; i < rounds.size(); ++i) {
    if (base[i] == 0) return 0;
    out.push_back(rounds[i] / base[i]);
  }
  return quantile(out, .5);
}

double residentBytes() {
  std::ifstream file("/proc/self/statm");
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

}  // namespace

Arguments::Arguments(const char* program, int argc, char** argv, const More& more) {
  const More all = [&] {
    More list = more;
    list.emplace_back("--only", [this](const std::string& value) { only = value; });
    list.emplace_back("--json", [this](const std::string& value) { json = value; });
    return list;
  }();
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto known = std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.first == argument; });
    if (argument == "--quick") {
      quick = true;
    } else if (known != all.end() && i + 1 < argc) {
      known->second(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: %s [--quick]", program);
      for (const auto& each : all) std::fprintf(stderr, " [%s VALUE]", each.first.c_str());
      std::fprintf(stderr, "\n");
      std::exit(2);
    }
  }
}

Idler::Idler()
    : thread_([this] {
        std::unique_lock lock(mutex_);
        ended_.wait(lock, [this] { return over_; });
      }) {}

Idler::~Idler() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

double threadNs() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

double quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  const double at = part * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(std::floor(at)), above = static_cast<size_t>(std::ceil(at));
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}

double bytesAfter(const std::function<void()>& f) {
  int ends[2];
  if (pipe(ends) != 0) return NAN;
  const pid_t child = fork();
  if (child == 0) {
    malloc_trim(0);
    const double before = residentBytes();
    f();
    const double bytes = residentBytes() - before;
    _exit(write(ends[1], &bytes, sizeof(bytes)) == sizeof(bytes) ? 0 : 1);
  }
  close(ends[1]);
  double bytes = NAN;
  if (child > 0 && read(ends[0], &bytes, sizeof(bytes)) != sizeof(bytes)) bytes = NAN;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  return bytes;
}

void Report::run(const Group& group) {
  if (group.name.find(only_) == std::string::npos) return;
  const size_t first = groups_.size();
  for (size_t m = 0; m < group.measures.size(); ++m) {
    groups_.push_back({group.name + ", " + group.measures[m], group.unit, {}});
    for (const Contender& each : group.contenders) {
      groups_.back().rows.push_back(
          {each.name, m < each.goals.size() ? each.goals[m] : 0, m == 0 ? each.atLeastTimes : 0, {}});
    }
  }
  for (int round = 0; round < rounds_; ++round) {
    for (size_t i = 0; i < group.contenders.size(); ++i) {
      const std::vector<double> figures = group.contenders[i].round();
      for (size_t m = 0; m < group.measures.size(); ++m) groups_[first + m].rows[i].rounds.push_back(figures[m]);
    }
  }
  for (size_t at = first; at < groups_.size(); ++at) print(groups_[at]);
}

void Report::print(const Done& done) {
  std::printf("%s\n", done.name.c_str());
  for (const Row& row : done.rows) {
    std::printf("  %-40s %9.4g %s  (%.4g … %.4g)", row.name.c_str(), quantile(row.rounds, .5), done.unit.c_str(),
                quantile(row.rounds, .25), quantile(row.rounds, .75));
    const double ratio = ratioTo(row.rounds, done.rows[0].rounds);
    if (done.rows.size() > 1 && ratio > 0) std::printf("  ×%.2f", ratio);
    if (row.times > 0) std::printf("  goal ≥ ×%g: %s", row.times, ratio >= row.times ? "met" : "missed");
    if (row.goal > 0) {
      std::printf("  goal ≤ %g: %s", row.goal, quantile(row.rounds, .5) <= row.goal ? "met" : "missed");
    }
    std::printf("\n");
  }
  std::fflush(stdout);
}

void Report::skip(const Skipped& peer) {
  std::printf("%s: not installed, skipped; %s\n", peer.name.c_str(), peer.install.c_str());
  skipped_.push_back(peer);
}

bool Report::write(const std::string& path) const {
  std::ofstream out(path);
  out << "{\n\"name\": " << quoted(name_) << ",\n\"machine\": " << machine() << ",\n\"rounds\": " << rounds_
      << ",\n\"skipped\": [";
  for (size_t i = 0; i < skipped_.size(); ++i) {
    out << (i ? ", " : "") << "{\"name\": " << quoted(skipped_[i].name)
        << ", \"install\": " << quoted(skipped_[i].install) << "}";
  }
  out << "],\n\"groups\": [";
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Done& group = groups_[i];
    out << (i ? ",\n" : "\n") << "{\"name\": " << quoted(group.name) << ", \"unit\": " << quoted(group.unit)
        << ", \"rows\": [";
    for (size_t k = 0; k < group.rows.size(); ++k) {
      const Row& row = group.rows[k];
      const double ratio = ratioTo(row.rounds, group.rows[0].rounds);
      const std::vector<double> values{quantile(row.rounds, .25), quantile(row.rounds, .5), quantile(row.rounds, .75)};
      out << (k ? ",\n  " : "\n  ") << "{\"name\": " << quoted(row.name);
      // As scripts/benchmarks/harness.mjs has it.
      const auto goal = [&](const char* kind, double is, double found, bool met) {
        out << ", \"goal\": {" << kind << ", \"is\": " << is << ", \"found\": " << found
            << ", \"met\": " << (met ? "true" : "false") << "}";
      };
      if (row.goal > 0) goal(R"("value": "most")", row.goal, values[1], values[1] <= row.goal);
      if (row.times > 0) goal(R"("ratio": "least")", row.times, ratio, ratio >= row.times);
      out << ", \"quartiles\": " << numbers(values) << ", \"ratio\": " << ratio
          << ", \"rounds\": " << numbers(row.rounds) << "}";
    }
    out << "]}";
  }
  out << "]\n}\n";
  out.close();
  if (!out) std::fprintf(stderr, "%s cannot be written\n", path.c_str());
  return static_cast<bool>(out);
}

}  // namespace bench
