// Reads the text in images through a Sluiceway server and prints each event as it comes.

#include <google/protobuf/util/time_util.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "sluiceway/pipeline/v1/pipeline.grpc.pb.h"

namespace {

namespace common = sluiceway::common::v1;
namespace pipeline = sluiceway::pipeline::v1;
using pipeline::PipelineService;
using pipeline::ProcessRequest;
using pipeline::ProcessResponse;
using google::protobuf::util::TimeUtil;

// gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
constexpr int kMaxMessageBytes = 64 << 20;

constexpr char kUsage[] =
    "usage: sluiceway-client [options] IMAGE...\n"
    "  --address HOST:PORT  the server (localhost:50051)\n"
    "  --ca FILE            use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent\n"
    "  --cert FILE --key FILE  the client's own certificate (mutual TLS)\n"
    "  --timeout SECONDS    deadline of the call, or of each job with --bulk\n"
    "  --cancel-after N     cancel the call after N events\n"
    "  --bulk N             one job an image over one stream, at most N jobs unfinished\n";

struct Options {
  std::map<std::string, std::string> values;
  std::vector<std::string> paths;

  std::string get(const std::string& name, const std::string& otherwise = "") const {
    auto found = values.find(name);
    return found == values.end() ? otherwise : found->second;
  }
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      options.paths.push_back(word);
    } else if (i + 1 < argc) {
      options.values[word.substr(2)] = argv[++i];
    } else {
      throw std::invalid_argument(word + " wants a value");
    }
  }
  if (options.paths.empty()) throw std::invalid_argument("no images");
  return options;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<grpc::Channel> connect(const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  const char* token = std::getenv("SLUICEWAY_TOKEN");
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (options.get("ca").empty()) {
    if (token != nullptr) throw std::runtime_error("a token is only sent over TLS: give --ca");
    credentials = grpc::InsecureChannelCredentials();
  } else {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = read_file(options.get("ca"));
    if (!options.get("cert").empty()) {
      tls.pem_cert_chain = read_file(options.get("cert"));
      tls.pem_private_key = read_file(options.get("key"));
    }
    credentials = grpc::SslCredentials(tls);
    if (token != nullptr) {
      // Sends `authorization: Bearer TOKEN` with every call.
      credentials = grpc::CompositeChannelCredentials(credentials, grpc::AccessTokenCredentials(token));
    }
  }
  return grpc::CreateCustomChannel(options.get("address", "localhost:50051"), credentials, arguments);
}

void add_source(ProcessRequest& job, const std::string& path) {
  auto* source = job.add_sources();
  source->set_source_id(std::filesystem::path(path).filename());
  source->set_image(read_file(path));
}

// The edges of an upright box, or the corners of another shape; those of a turned box clockwise from the one that is top
// left without the turn (y grows downwards). Empty for shapes that this program is too old for.
std::vector<double> numbers_of(const common::Geometry& geometry) {
  std::vector<double> numbers;
  if (geometry.has_box()) {
    const auto& box = geometry.box();
    numbers = {box.x0(), box.y0(), box.x1(), box.y1()};
  } else if (geometry.has_rotated_box()) {
    const auto& box = geometry.rotated_box();
    const double angle = box.angle_degrees() * std::acos(-1.0) / 180, cos = std::cos(angle), sin = std::sin(angle);
    for (auto [right, down] : {std::pair{-1, -1}, {1, -1}, {1, 1}, {-1, 1}}) {
      const double x = right * box.width() / 2.0, y = down * box.height() / 2.0;
      numbers.push_back(box.center().x() + x * cos - y * sin);
      numbers.push_back(box.center().y() + x * sin + y * cos);
    }
  } else if (geometry.has_polygon()) {
    for (const auto& point : geometry.polygon().points()) {
      numbers.push_back(point.x());
      numbers.push_back(point.y());
    }
  }
  return numbers;
}

// Where each point is and how sure the model is that it can be seen: x, y, confidence.
std::vector<double> numbers_of(const pipeline::Region& region) {
  std::vector<double> numbers;
  for (const auto& point : region.keypoints()) numbers.insert(numbers.end(), {point.x(), point.y(), point.confidence()});
  return numbers;
}

std::string join(const std::vector<double>& numbers) {
  std::ostringstream words;
  words << std::fixed << std::setprecision(2);
  for (double number : numbers) words << (words.tellp() > 0 ? " " : "") << number;
  return words.str();
}

// Writes a line for each thing that an event tells. Returns how many sources or jobs it says have failed.
int print_event(const ProcessResponse& event) {
  const char* source = event.source_id().c_str();
  switch (event.event_case()) {
    case ProcessResponse::kSourceReady:
      std::printf("source_ready\t%s\t%lld\n", source, static_cast<long long>(event.source_ready().size_bytes()));
      break;
    case ProcessResponse::kRegions: {
      const auto& found = event.regions();
      std::printf("regions\t%s\t%d\t%d\t%d\n", source, found.page().width(), found.page().height(),
                  found.regions_size());
      for (const auto& region : found.regions()) {
        // A newer server may know shapes that this program does not.
        if (const auto numbers = join(numbers_of(region.geometry())); !numbers.empty()) {
          std::printf("%s\t%s\t%d\t%s\t%s\t%.4f\n", region.geometry().has_box() ? "box" : "outline", source,
                      region.id(), numbers.c_str(), region.class_name().c_str(), region.confidence());
        }
        if (const auto numbers = join(numbers_of(region)); !numbers.empty()) {
          std::printf("keypoints\t%s\t%d\t%s\n", source, region.id(), numbers.c_str());
        }
      }
      break;
    }
    case ProcessResponse::kValues: {
      // What is about a page or the source names no region.
      const auto subject = event.values().subject();
      const bool of_page = subject == pipeline::SUBJECT_PAGE;
      if (!of_page && subject != pipeline::SUBJECT_UNSPECIFIED && subject != pipeline::SUBJECT_REGION) break;
      for (const auto& value : event.values().values()) {
        if (value.has_text() && !of_page) {
          std::printf("text\t%s\t%d\t%.4f\t%s\n", source, value.region_id(), value.text().confidence(),
                      value.text().text().c_str());
        }
        for (const auto& label : value.classification().labels()) {
          std::printf("%s\t%s\t%d\t%.4f\t%s\n", of_page ? "page_class" : "class", source,
                      of_page ? event.values().page() : value.region_id(), label.confidence(),
                      label.class_name().c_str());
          break;  // The best one.
        }
      }
      break;
    }
    case ProcessResponse::kDone: {
      std::ostringstream order;
      for (auto id : event.done().reading_order()) order << (order.tellp() > 0 ? " " : "") << id;
      std::printf("done\t%s\t%s\n", source, order.str().c_str());
      break;
    }
    case ProcessResponse::kFailed:
      std::printf("failed\t%s\t%s\t%s\n", source, event.failed().error().reason().c_str(),
                  event.failed().error().message().c_str());
      return 1;
    case ProcessResponse::kJobDone:
      std::printf("job_done\t%s\t%d\t%d\n", event.job_id().c_str(), event.job_done().succeeded(),
                  event.job_done().failed());
      break;
    case ProcessResponse::kJobRefused: {
      const auto& error = event.job_refused().error();
      std::printf("refused\t%s\t%s\t%d\t%s\n", event.job_id().c_str(), error.reason().c_str(),
                  error.retry_after_ms(), error.message().c_str());
      return 1;
    }
    case ProcessResponse::EVENT_NOT_SET:  // also every event that this program is too old for
      break;
  }
  return 0;
}

const char* code_name(grpc::StatusCode code) {
  static const char* const names[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code <= grpc::StatusCode::UNAUTHENTICATED ? names[code] : "UNKNOWN";
}

// Writes what the server said: the code, Sluiceway's stable reason, and when to try again.
void print_error(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    if (detail.Is<google::rpc::ErrorInfo>()) detail.UnpackTo(&info);
    if (detail.Is<google::rpc::RetryInfo>()) detail.UnpackTo(&retry);
  }
  const auto& delay = retry.retry_delay();
  std::printf("error\t%s\t%s\t%lld\t%s\n", code_name(status.error_code()),
              info.reason().empty() ? "-" : info.reason().c_str(),
              static_cast<long long>(delay.seconds() * 1000 + delay.nanos() / 1000000), status.error_message().c_str());
  for (const auto& [key, value] : info.metadata()) std::printf("error_metadata\t%s\t%s\n", key.c_str(), value.c_str());
}

// Counts the jobs that are not finished, and makes the writer wait while there are `size` of them.
class Window {
 public:
  explicit Window(int size) : free_(size) {}

  // False once the stream has ended.
  bool enter() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return free_ > 0 || closed_; });
    --free_;
    return !closed_;
  }

  void leave() {
    std::lock_guard lock(mutex_);
    ++free_;
    changed_.notify_one();
  }

  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int free_;
  bool closed_ = false;
};

// Called with each event.
using Receive = std::function<void(const ProcessResponse&)>;

// 0 without a deadline.
long long timeout_ms(const Options& options) {
  return static_cast<long long>(std::stod(options.get("timeout", "0")) * 1000);
}

// Sends all images as one job.
grpc::Status process(PipelineService::Stub& stub, grpc::ClientContext& context, const Options& options,
                     const Receive& receive) {
  ProcessRequest request;
  for (const auto& path : options.paths) add_source(request, path);
  if (auto ms = timeout_ms(options); ms > 0) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(ms));
  }
  // The server makes room for so much, and reads at once.
  context.AddMetadata("sluiceway-request-bytes", std::to_string(request.ByteSizeLong()));
  context.AddMetadata("sluiceway-priority", "normal");
  auto reader = stub.Process(&context, request);
  ProcessResponse event;
  while (reader->Read(&event)) receive(event);
  return reader->Finish();
}

// Sends a job for each image over one stream. Two things bound what is in flight: the window of jobs that are not
// finished, and Write, which blocks while the server does not read. An image is read when its turn comes.
grpc::Status process_stream(PipelineService::Stub& stub, grpc::ClientContext& context, const Options& options,
                            const Receive& receive) {
  // How large the largest job is, is not known yet: files are read one by one.
  context.AddMetadata("sluiceway-priority", "bulk");
  auto stream = stub.ProcessStream(&context);
  Window window(std::stoi(options.get("bulk")));
  std::exception_ptr unreadable;
  std::thread writer([&] {
    for (size_t i = 0; i < options.paths.size() && window.enter(); ++i) {
      pipeline::ProcessStreamRequest request;
      try {
        add_source(*request.mutable_job(), options.paths[i]);
      } catch (const std::runtime_error&) {
        unreadable = std::current_exception();  // Told once the jobs before it are finished.
        break;
      }
      request.mutable_job()->set_job_id("job-" + std::to_string(i));
      request.mutable_job()->mutable_options()->set_priority(sluiceway::common::v1::PRIORITY_BULK);
      // The deadline of the stream would end it with all its jobs.
      if (auto ms = timeout_ms(options); ms > 0) *request.mutable_job()->mutable_timeout() = TimeUtil::MillisecondsToDuration(ms);
      if (!stream->Write(request)) return;  // Finish says why.
    }
    stream->WritesDone();
  });
  pipeline::ProcessStreamResponse response;
  while (stream->Read(&response)) {
    receive(response.event());
    if (response.event().has_job_done() || response.event().has_job_refused()) window.leave();
  }
  window.close();
  writer.join();
  grpc::Status status = stream->Finish();
  if (unreadable && status.ok()) std::rethrow_exception(unreadable);
  return status;
}

int run(const Options& options) {
  auto stub = PipelineService::NewStub(connect(options));
  grpc::ClientContext context;
  int failed = 0, count = 0;
  const int cancel_after = std::stoi(options.get("cancel-after", "0"));
  auto receive = [&](const ProcessResponse& event) {
    failed += print_event(event);
    // Ends the call on the server, too.
    if (++count == cancel_after) context.TryCancel();
  };
  auto call = options.get("bulk").empty() ? process : process_stream;
  grpc::Status status = call(*stub, context, options, receive);
  if (!status.ok()) print_error(status);
  return status.ok() && failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  // Events are for the moment they happen, also in a pipe.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  Options options;
  try {
    options = parse(argc, argv);
  } catch (const std::invalid_argument& error) {
    std::cerr << error.what() << "\n" << kUsage;
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
