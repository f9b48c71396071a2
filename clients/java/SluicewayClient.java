import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.Durations;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.sluiceway.common.v1.Box;
import com.sluiceway.common.v1.Error;
import com.sluiceway.common.v1.Geometry;
import com.sluiceway.common.v1.Label;
import com.sluiceway.common.v1.Point;
import com.sluiceway.common.v1.Priority;
import com.sluiceway.common.v1.RotatedBox;
import com.sluiceway.pipeline.v1.PipelineServiceGrpc;
import com.sluiceway.pipeline.v1.ProcessOptions;
import com.sluiceway.pipeline.v1.ProcessRequest;
import com.sluiceway.pipeline.v1.ProcessResponse;
import com.sluiceway.pipeline.v1.ProcessStreamRequest;
import com.sluiceway.pipeline.v1.ProcessStreamResponse;
import com.sluiceway.pipeline.v1.Region;
import com.sluiceway.pipeline.v1.Regions;
import com.sluiceway.pipeline.v1.Source;
import com.sluiceway.pipeline.v1.Subject;
import com.sluiceway.pipeline.v1.Value;
import io.grpc.CallCredentials;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import io.netty.handler.ssl.SslContextBuilder;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Reads the text in images through a Sluiceway server and prints each event as it comes. */
public final class SluicewayClient {
  private static final String USAGE =
      "usage: sluiceway-client [options] IMAGE...\n"
          + "  --address HOST:PORT  the server (localhost:50051)\n"
          + "  --ca FILE            use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent\n"
          + "  --cert FILE --key FILE  the client's own certificate (mutual TLS)\n"
          + "  --timeout SECONDS    deadline of the call, or of each job with --bulk\n"
          + "  --cancel-after N     cancel the call after N events\n"
          + "  --bulk N             one job an image over one stream, at most N jobs unfinished";

  // gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
  private static final int MAX_MESSAGE_BYTES = 64 << 20;

  private static final ProcessOptions BULK = ProcessOptions.newBuilder().setPriority(Priority.PRIORITY_BULK).build();

  // The platform's default may not be able to print what was read.
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  private final Map<String, String> options;
  private final List<String> paths;
  // Cancelling it ends the calls made in it, on the server, too.
  private final Context.CancellableContext context = Context.current().withCancellation();
  private int events;
  private int failed;

  private SluicewayClient(Map<String, String> options, List<String> paths) {
    this.options = options;
    this.paths = paths;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> options = new HashMap<>();
    List<String> paths = new ArrayList<>();
    for (Iterator<String> words = List.of(arguments).iterator(); words.hasNext(); ) {
      String word = words.next();
      if (!word.startsWith("--")) {
        paths.add(word);
      } else if (words.hasNext()) {
        options.put(word.substring(2), words.next());
      }
    }
    if (paths.isEmpty()) {
      System.err.println(USAGE);
      System.exit(2);
    }
    try {
      System.exit(new SluicewayClient(options, paths).run() ? 0 : 1);
    } catch (StatusRuntimeException error) {
      printError(error);
    } catch (IOException | UncheckedIOException | IllegalArgumentException error) {
      System.err.println(error.getMessage());
    }
    System.exit(1);
  }

  private boolean run() throws IOException, InterruptedException {
    ManagedChannel channel = connect();
    try {
      context.run(options.containsKey("bulk") ? () -> processStream(channel) : () -> process(channel));
      return failed == 0;
    } finally {
      context.close();
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private ManagedChannel connect() throws IOException {
    String address = options.getOrDefault("address", "localhost:50051");
    NettyChannelBuilder builder = NettyChannelBuilder.forTarget(address).maxInboundMessageSize(MAX_MESSAGE_BYTES);
    if (!options.containsKey("ca")) {
      if (bearer() != null) {
        throw new IllegalArgumentException("a token is only sent over TLS: give --ca");
      }
      return builder.usePlaintext().build();
    }
    SslContextBuilder tls = GrpcSslContexts.forClient().trustManager(new File(options.get("ca")));
    if (options.containsKey("cert")) {
      tls.keyManager(new File(options.get("cert")), new File(options.get("key")));
    }
    return builder.sslContext(tls.build()).build();
  }

  /** The token, sent with every call; null without one. */
  private static CallCredentials bearer() {
    String token = System.getenv("SLUICEWAY_TOKEN");
    if (token == null) {
      return null;
    }
    return new CallCredentials() {
      @Override
      public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        applier.apply(metadata("authorization", "Bearer " + token));
      }

      @Override
      public void thisUsesUnstableApi() {}
    };
  }

  private static Metadata metadata(String key, String value) {
    Metadata metadata = new Metadata();
    metadata.put(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER), value);
    return metadata;
  }

  private static Source readSource(String path) {
    try {
      return Source.newBuilder()
          .setSourceId(Path.of(path).getFileName().toString())
          .setImage(ByteString.copyFrom(Files.readAllBytes(Path.of(path))))
          .build();
    } catch (IOException error) {
      throw new UncheckedIOException(path + ": cannot be read", error);
    }
  }

  private <S extends AbstractStub<S>> S configure(S stub, Metadata metadata) {
    stub = stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
    return bearer() == null ? stub : stub.withCallCredentials(bearer());
  }

  private long timeoutMillis() {
    return Math.round(Double.parseDouble(options.get("timeout")) * 1000);
  }

  /** Sends all images as one job. */
  private void process(ManagedChannel channel) {
    ProcessRequest.Builder request = ProcessRequest.newBuilder();
    paths.forEach(path -> request.addSources(readSource(path)));
    ProcessRequest job = request.build();
    Metadata metadata = metadata("sluiceway-priority", "normal");
    // The server makes room for so much, and reads at once.
    metadata.merge(metadata("sluiceway-request-bytes", String.valueOf(job.getSerializedSize())));
    PipelineServiceGrpc.PipelineServiceBlockingStub stub =
        configure(PipelineServiceGrpc.newBlockingStub(channel), metadata);
    if (options.containsKey("timeout")) {
      stub = stub.withDeadlineAfter(timeoutMillis(), TimeUnit.MILLISECONDS);
    }
    stub.process(job).forEachRemaining(this::receive);
  }

  /** Sends a job for each image over one stream. */
  private void processStream(ManagedChannel channel) {
    Bulk bulk = new Bulk(Integer.parseInt(options.get("bulk")));
    // How large the largest job is, is not known yet: files are read one by one.
    Metadata metadata = metadata("sluiceway-priority", "bulk");
    configure(PipelineServiceGrpc.newStub(channel), metadata).processStream(bulk);
    try {
      bulk.done.join();
      if (bulk.unreadable != null) {
        throw bulk.unreadable;
      }
    } catch (CompletionException error) {
      throw (RuntimeException) error.getCause();
    }
  }

  /**
   * Both ends of the stream. Two things bound what is in flight: the window of jobs that are not finished, and
   * `isReady`, which is false while the server does not read. An image is read when its turn comes, and an event is
   * asked for when the one before it was printed. gRPC calls these methods one at a time.
   */
  private final class Bulk implements ClientResponseObserver<ProcessStreamRequest, ProcessStreamResponse> {
    final CompletableFuture<Void> done = new CompletableFuture<>();
    private final int window;
    private int sent;
    private int finished;
    private boolean complete;
    private UncheckedIOException unreadable;
    private ClientCallStreamObserver<ProcessStreamRequest> requests;

    Bulk(int window) {
      this.window = window;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<ProcessStreamRequest> stream) {
      requests = stream;
      requests.disableAutoRequestWithInitial(1);
      requests.setOnReadyHandler(this::send);
    }

    private boolean more() {
      return sent < paths.size() && unreadable == null;
    }

    private void send() {
      while (!complete && requests.isReady() && sent - finished < window && more()) {
        ProcessRequest.Builder job = ProcessRequest.newBuilder().setJobId("job-" + sent).setOptions(BULK);
        if (options.containsKey("timeout")) {
          // The deadline of the stream would end it with all its jobs.
          job.setTimeout(Durations.fromMillis(timeoutMillis()));
        }
        try {
          job.addSources(readSource(paths.get(sent)));
        } catch (UncheckedIOException error) {
          // Told once the jobs before it are finished.
          unreadable = error;
          break;
        }
        sent++;
        requests.onNext(ProcessStreamRequest.newBuilder().setJob(job).build());
      }
      if (!complete && !more()) {
        complete = true;
        requests.onCompleted();
      }
    }

    @Override
    public void onNext(ProcessStreamResponse response) {
      if (response.getEvent().hasJobDone() || response.getEvent().hasJobRefused()) {
        finished++;
        send();
      }
      receive(response.getEvent());
      requests.request(1);
    }

    @Override
    public void onError(Throwable error) {
      done.completeExceptionally(error);
    }

    @Override
    public void onCompleted() {
      done.complete(null);
    }
  }

  private void receive(ProcessResponse event) {
    failed += printEvent(event);
    if (String.valueOf(++events).equals(options.get("cancel-after"))) {
      context.cancel(null);
    }
  }

  /** Writes a line for each thing that an event tells. Returns how many sources or jobs it says have failed. */
  private static int printEvent(ProcessResponse response) {
    String source = response.getSourceId();
    switch (response.getEventCase()) {
      case SOURCE_READY:
        line("source_ready", source, response.getSourceReady().getSizeBytes());
        return 0;
      case REGIONS:
        Regions found = response.getRegions();
        line("regions", source, found.getPage().getWidth(), found.getPage().getHeight(), found.getRegionsCount());
        for (Region region : found.getRegionsList()) {
          // A newer server may know shapes that this program does not.
          List<Double> numbers = numbersOf(region.getGeometry());
          if (!numbers.isEmpty()) {
            String kind = region.getGeometry().hasBox() ? "box" : "outline";
            String joined = joined(numbers);
            line(kind, source, region.getId(), joined, region.getClassName(), format("%.4f", region.getConfidence()));
          }
          if (region.getKeypointsCount() > 0) {
            line("keypoints", source, region.getId(), joined(keypointsOf(region)));
          }
        }
        return 0;
      case VALUES:
        Subject subject = response.getValues().getSubject();
        boolean ofPage = subject == Subject.SUBJECT_PAGE;
        if (!ofPage && subject != Subject.SUBJECT_UNSPECIFIED && subject != Subject.SUBJECT_REGION) {
          return 0; // what is about a page or the source names no region
        }
        for (Value value : response.getValues().getValuesList()) {
          if (value.hasText() && !ofPage) {
            String confidence = format("%.4f", value.getText().getConfidence());
            line("text", source, value.getRegionId(), confidence, value.getText().getText());
          }
          if (value.getClassification().getLabelsCount() > 0) {
            Label best = value.getClassification().getLabels(0);
            int about = ofPage ? response.getValues().getPage() : value.getRegionId();
            line(ofPage ? "page_class" : "class", source, about, format("%.4f", best.getConfidence()), best.getClassName());
          }
        }
        return 0;
      case DONE:
        line("done", source, join(response.getDone().getReadingOrderList().stream(), " "));
        return 0;
      case FAILED:
        line("failed", source, response.getFailed().getError().getReason(), response.getFailed().getError().getMessage());
        return 1;
      case JOB_DONE:
        line("job_done", response.getJobId(), response.getJobDone().getSucceeded(), response.getJobDone().getFailed());
        return 0;
      case JOB_REFUSED:
        Error error = response.getJobRefused().getError();
        line("refused", response.getJobId(), error.getReason(), error.getRetryAfterMs(), error.getMessage());
        return 1;
      default: // an event that this program is too old for
        return 0;
    }
  }

  /** Where each point is and how sure the model is that it can be seen: x, y, confidence. */
  private static List<Double> keypointsOf(Region region) {
    return region.getKeypointsList().stream()
        .flatMap(point -> Stream.of((double) point.getX(), (double) point.getY(), (double) point.getConfidence()))
        .collect(Collectors.toList());
  }

  private static String joined(List<Double> numbers) {
    return join(numbers.stream().map(number -> format("%.2f", number)), " ");
  }

  /** The edges of an upright box, or the corners of another shape; nothing of one that this program is too old for. */
  private static List<Double> numbersOf(Geometry geometry) {
    List<Double> numbers = new ArrayList<>();
    switch (geometry.getShapeCase()) {
      case BOX:
        Box box = geometry.getBox();
        return List.of((double) box.getX0(), (double) box.getY0(), (double) box.getX1(), (double) box.getY1());
      case ROTATED_BOX:
        RotatedBox turned = geometry.getRotatedBox();
        double angle = Math.toRadians(turned.getAngleDegrees());
        double cos = Math.cos(angle);
        double sin = Math.sin(angle);
        // Clockwise from the one that is top left without the turn; y grows downwards.
        for (int[] side : new int[][] {{-1, -1}, {1, -1}, {1, 1}, {-1, 1}}) {
          double x = side[0] * turned.getWidth() / 2.0;
          double y = side[1] * turned.getHeight() / 2.0;
          numbers.add(turned.getCenter().getX() + x * cos - y * sin);
          numbers.add(turned.getCenter().getY() + x * sin + y * cos);
        }
        return numbers;
      case POLYGON:
        for (Point point : geometry.getPolygon().getPointsList()) {
          numbers.add((double) point.getX());
          numbers.add((double) point.getY());
        }
        return numbers;
      default:
        return numbers;
    }
  }

  /** Writes what the server said: the code, Sluiceway's stable reason, and when to try again. */
  private static void printError(StatusRuntimeException error) {
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    RetryInfo retry = RetryInfo.getDefaultInstance();
    com.google.rpc.Status details = StatusProto.fromThrowable(error);
    try {
      for (Any detail : details.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(RetryInfo.class)) {
          retry = detail.unpack(RetryInfo.class);
        }
      }
    } catch (InvalidProtocolBufferException damaged) {
      // What the plain status says is still right.
    }
    String reason = info.getReason().isEmpty() ? "-" : info.getReason();
    long retryMs = Durations.toMillis(retry.getRetryDelay());
    line("error", error.getStatus().getCode(), reason, retryMs, error.getStatus().getDescription());
    info.getMetadataMap().forEach((key, value) -> line("error_metadata", key, value));
  }

  private static String format(String format, Object... values) {
    return String.format(Locale.ROOT, format, values);
  }

  private static String join(Stream<?> values, String separator) {
    return values.map(String::valueOf).collect(Collectors.joining(separator));
  }

  private static void line(Object... fields) {
    OUT.println(join(Stream.of(fields), "\t"));
  }
}
