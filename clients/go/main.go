// Command sluiceway-client reads the text in images through a Sluiceway server and prints each event as it comes.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	common "github.com/sluiceway/sluiceway/gen/go/sluiceway/common/v1"
	pipeline "github.com/sluiceway/sluiceway/gen/go/sluiceway/pipeline/v1"
)

// gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
const maxMessageBytes = 64 << 20

type options struct {
	address, ca, cert, key string
	timeout                float64
	cancelAfter, bulk      int
}

func (o options) duration() time.Duration { return time.Duration(o.timeout * float64(time.Second)) }

func main() {
	var o options
	flag.StringVar(&o.address, "address", "localhost:50051", "`host:port` of the server")
	flag.StringVar(&o.ca, "ca", "", "use TLS and trust this `file` of certificates; the token in SLUICEWAY_TOKEN is sent")
	flag.StringVar(&o.cert, "cert", "", "`file` of the client's own certificate (mutual TLS)")
	flag.StringVar(&o.key, "key", "", "`file` of its private key")
	flag.Float64Var(&o.timeout, "timeout", 0, "deadline of the call, or of each job with -bulk, in `seconds`")
	flag.IntVar(&o.cancelAfter, "cancel-after", 0, "cancel the call after this many `events`")
	flag.IntVar(&o.bulk, "bulk", 0, "one job an image over one stream, at most this many `jobs` unfinished")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	failed, err := run(o, flag.Args())
	if err != nil {
		printError(err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

// run processes the images and returns how many of them failed.
func run(o options, paths []string) (failed int, err error) {
	connection, err := connect(o)
	if err != nil {
		return 0, err
	}
	defer connection.Close()

	// Cancelling this context ends the call on the server, too; so does its deadline.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The deadline of a stream would end it with all its jobs.
	if o.timeout > 0 && o.bulk == 0 {
		ctx, cancel = context.WithTimeout(ctx, o.duration())
		defer cancel()
	}

	client := pipeline.NewPipelineServiceClient(connection)
	next := processStream
	if o.bulk == 0 {
		next = process
	}
	events, err := next(ctx, client, paths, o)
	if err != nil {
		return 0, err
	}
	for count := 1; ; count++ {
		event, err := events()
		if errors.Is(err, io.EOF) {
			return failed, nil
		}
		if err != nil {
			return failed, err
		}
		failed += printEvent(event)
		if count == o.cancelAfter {
			cancel()
		}
	}
}

func connect(o options) (*grpc.ClientConn, error) {
	dial := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes))}
	token := os.Getenv("SLUICEWAY_TOKEN")
	if o.ca == "" {
		if token != "" {
			return nil, errors.New("a token is only sent over TLS: give -ca")
		}
		return grpc.Dial(o.address, append(dial, grpc.WithInsecure())...)
	}
	authorities, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("%s: no certificate in it", o.ca)
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(token)))
	}
	return grpc.Dial(o.address, dial...)
}

// bearer is a token that goes with every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// process sends all images as one job. The function that it returns gives one event after the other, then io.EOF.
func process(ctx context.Context, client pipeline.PipelineServiceClient, paths []string, _ options) (func() (*pipeline.ProcessResponse, error), error) {
	request := &pipeline.ProcessRequest{}
	for _, path := range paths {
		source, err := readSource(path)
		if err != nil {
			return nil, err
		}
		request.Sources = append(request.Sources, source)
	}
	// The server makes room for so much, and reads at once.
	ctx = metadata.AppendToOutgoingContext(ctx,
		"sluiceway-request-bytes", strconv.Itoa(proto.Size(request)), "sluiceway-priority", "normal")
	stream, err := client.Process(ctx, request)
	if err != nil {
		return nil, err
	}
	return stream.Recv, nil
}

// processStream sends a job for each image over one stream. Two things bound what is in flight: `bulk` jobs that are
// not finished, and Send, which blocks while the server does not read. An image is read when its turn comes.
func processStream(ctx context.Context, client pipeline.PipelineServiceClient, paths []string, o options) (func() (*pipeline.ProcessResponse, error), error) {
	// How large the largest job is, is not known yet: files are read one by one.
	stream, err := client.ProcessStream(metadata.AppendToOutgoingContext(ctx, "sluiceway-priority", "bulk"))
	if err != nil {
		return nil, err
	}
	slots := make(chan struct{}, o.bulk)
	unreadable := make(chan error, 1)
	go func() {
		defer stream.CloseSend()
		for i, path := range paths {
			select {
			case slots <- struct{}{}:
			case <-stream.Context().Done():
				return
			}
			source, err := readSource(path)
			if err != nil {
				unreadable <- err // Told once the jobs before it are finished.
				return
			}
			job := &pipeline.ProcessRequest{
				JobId:   fmt.Sprint("job-", i),
				Sources: []*pipeline.Source{source},
				Options: &pipeline.ProcessOptions{Priority: common.Priority_PRIORITY_BULK},
			}
			if o.timeout > 0 {
				job.Timeout = durationpb.New(o.duration())
			}
			if stream.Send(&pipeline.ProcessStreamRequest{Action: &pipeline.ProcessStreamRequest_Job{Job: job}}) != nil {
				return // Recv says why.
			}
		}
	}()
	return func() (*pipeline.ProcessResponse, error) {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) && len(unreadable) > 0 {
			err = <-unreadable
		}
		if err != nil {
			return nil, err
		}
		if event := response.GetEvent(); event.GetJobDone() != nil || event.GetJobRefused() != nil {
			<-slots
		}
		return response.GetEvent(), nil
	}, nil
}

func readSource(path string) (*pipeline.Source, error) {
	image, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &pipeline.Source{SourceId: filepath.Base(path), Content: &pipeline.Source_Image{Image: image}}, nil
}

// printEvent writes a line for each thing that an event tells and returns how many sources or jobs it says have failed.
func printEvent(response *pipeline.ProcessResponse) int {
	source := response.GetSourceId()
	switch event := response.GetEvent().(type) {
	case *pipeline.ProcessResponse_SourceReady:
		line("source_ready", source, event.SourceReady.GetSizeBytes())
	case *pipeline.ProcessResponse_Regions:
		found := event.Regions
		line("regions", source, found.GetPage().GetWidth(), found.GetPage().GetHeight(), len(found.GetRegions()))
		for _, region := range found.GetRegions() {
			// A newer server may know shapes that this program does not.
			if kind, numbers := shape(region.GetGeometry()); kind != "" {
				line(kind, source, region.GetId(), numbers,
					region.GetClassName(), fmt.Sprintf("%.4f", region.GetConfidence()))
			}
			if points := region.GetKeypoints(); len(points) > 0 {
				line("keypoints", source, region.GetId(), keypoints(points))
			}
		}
	case *pipeline.ProcessResponse_Values:
		for _, value := range event.Values.GetValues() {
			// What is about a page or the source names no region.
			kind, subject, text := "class", value.GetRegionId(), value.GetText()
			switch event.Values.GetSubject() {
			case pipeline.Subject_SUBJECT_UNSPECIFIED, pipeline.Subject_SUBJECT_REGION:
			case pipeline.Subject_SUBJECT_PAGE:
				kind, subject, text = "page_class", event.Values.GetPage(), nil
			default:
				continue
			}
			if text != nil {
				line("text", source, subject, fmt.Sprintf("%.4f", text.GetConfidence()), text.GetText())
			}
			if labels := value.GetClassification().GetLabels(); len(labels) > 0 {
				line(kind, source, subject, fmt.Sprintf("%.4f", labels[0].GetConfidence()), labels[0].GetClassName())
			}
		}
	case *pipeline.ProcessResponse_Done:
		line("done", source, strings.Trim(fmt.Sprint(event.Done.GetReadingOrder()), "[]"))
	case *pipeline.ProcessResponse_Failed:
		line("failed", source, event.Failed.GetError().GetReason(), event.Failed.GetError().GetMessage())
		return 1
	case *pipeline.ProcessResponse_JobDone:
		line("job_done", response.GetJobId(), event.JobDone.GetSucceeded(), event.JobDone.GetFailed())
	case *pipeline.ProcessResponse_JobRefused:
		err := event.JobRefused.GetError()
		line("refused", response.GetJobId(), err.GetReason(), err.GetRetryAfterMs(), err.GetMessage())
		return 1
	}
	return 0
}

// shape tells what a region looks like and its numbers: the edges of an upright box, or the corners of any other.
func shape(geometry *common.Geometry) (kind, numbers string) {
	var all []float64
	switch shape := geometry.GetShape().(type) {
	case *common.Geometry_Box:
		box := shape.Box
		kind, all = "box", []float64{float64(box.GetX0()), float64(box.GetY0()), float64(box.GetX1()), float64(box.GetY1())}
	case *common.Geometry_RotatedBox:
		kind, all = "outline", corners(shape.RotatedBox)
	case *common.Geometry_Polygon:
		kind = "outline"
		for _, point := range shape.Polygon.GetPoints() {
			all = append(all, float64(point.GetX()), float64(point.GetY()))
		}
	}
	return kind, join(all)
}

// keypoints are where each point is and how sure the model is that it can be seen: x, y, confidence.
func keypoints(points []*common.Keypoint) string {
	var all []float64
	for _, point := range points {
		all = append(all, float64(point.GetX()), float64(point.GetY()), float64(point.GetConfidence()))
	}
	return join(all)
}

func join(numbers []float64) string {
	words := make([]string, len(numbers))
	for i, number := range numbers {
		words[i] = strconv.FormatFloat(number, 'f', 2, 64)
	}
	return strings.Join(words, " ")
}

// corners are those of a turned box, clockwise from the one that is top left without the turn; y grows downwards.
func corners(box *common.RotatedBox) []float64 {
	sin, cos := math.Sincos(float64(box.GetAngleDegrees()) * math.Pi / 180)
	var all []float64
	for _, side := range [][2]float64{{-1, -1}, {1, -1}, {1, 1}, {-1, 1}} {
		x, y := side[0]*float64(box.GetWidth())/2, side[1]*float64(box.GetHeight())/2
		all = append(all, float64(box.GetCenter().GetX())+x*cos-y*sin, float64(box.GetCenter().GetY())+x*sin+y*cos)
	}
	return all
}

// printError writes what the server said: the code, Sluiceway's stable reason, and when to try again.
func printError(err error) {
	reason, retryMs, metadata := "-", int64(0), map[string]string{}
	state, _ := status.FromError(err)
	for _, detail := range state.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason, metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.RetryInfo:
			retryMs = detail.GetRetryDelay().AsDuration().Milliseconds()
		}
	}
	line("error", state.Code(), reason, retryMs, state.Message())
	for key, value := range metadata {
		line("error_metadata", key, value)
	}
}

// line writes tab-separated fields.
func line(fields ...any) {
	words := make([]string, len(fields))
	for i, field := range fields {
		words[i] = fmt.Sprint(field)
	}
	fmt.Println(strings.Join(words, "\t"))
}
