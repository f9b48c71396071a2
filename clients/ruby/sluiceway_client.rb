#!/usr/bin/env ruby
# frozen_string_literal: true

# Reads the text in images through a Sluiceway server and prints each event as it comes.

$LOAD_PATH.unshift File.join(__dir__, 'gen')

require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'grpc'
require 'optparse'
require 'sluiceway/pipeline/v1/pipeline_services_pb'

Pipeline = Sluiceway::Pipeline::V1

# gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
MAX_MESSAGE_BYTES = 64 * 2**20

# Counts the jobs that are not finished and makes the sender wait while there are `size` of them.
class Window
  def initialize(size)
    @slots = SizedQueue.new(size)
  end

  # Returns nil once the window is closed.
  def enter
    @slots.push(true)
  rescue ClosedQueueError
    nil
  end

  def leave
    @slots.pop
  end

  def close
    @slots.close
  end
end

# One call to a server, as the command line describes it.
class Client
  def initialize(options)
    @options = options
    @failed = 0
    channel_args = { 'grpc.max_receive_message_length' => MAX_MESSAGE_BYTES }
    @stub = Pipeline::PipelineService::Stub.new(options[:address], credentials, channel_args: channel_args)
  end

  # Returns whether every image was read.
  def run(paths)
    # An operation, so that the call can be cancelled: on the server, too.
    operation = @options[:bulk] ? process_stream(paths) : process(paths)
    count = 0
    operation.execute.each do |message|
      event = message.is_a?(Pipeline::ProcessStreamResponse) ? message.event : message
      @failed += print_event(event)
      @window&.leave if %i[job_done job_refused].include?(event.event)
      operation.cancel if (count += 1) == @options[:'cancel-after']
    end
    raise @unreadable if @unreadable

    @failed.zero?
  ensure
    @window&.close
  end

  private

  def credentials
    token = ENV.fetch('SLUICEWAY_TOKEN', nil)
    unless @options[:ca]
      abort 'a token is only sent over TLS: give --ca' if token
      return :this_channel_is_insecure
    end
    files = @options.values_at(:ca, :key, :cert).map { |path| File.read(path) if path }
    tls = GRPC::Core::ChannelCredentials.new(*files)
    return tls unless token

    bearer = GRPC::Core::CallCredentials.new(->(_) { { 'authorization' => "Bearer #{token}" } })
    tls.compose(bearer)
  end

  def source(path)
    Pipeline::Source.new(source_id: File.basename(path), image: File.binread(path))
  end

  # Sends all images as one job.
  def process(paths)
    request = Pipeline::ProcessRequest.new(sources: paths.map { |path| source(path) })
    # The server makes room for so much, and reads at once.
    size_bytes = Pipeline::ProcessRequest.encode(request).bytesize
    metadata = { 'sluiceway-request-bytes' => size_bytes.to_s, 'sluiceway-priority' => 'normal' }
    deadline = Time.now + @options[:timeout] if @options[:timeout]
    @stub.process(request, return_op: true, metadata: metadata, deadline: deadline)
  end

  # Sends a job for each image over one stream. Two things bound what is in flight: the window of jobs that are not
  # finished, and gRPC, which takes the next request only when it has written the one before. An image is read when its
  # turn comes.
  def process_stream(paths)
    @window = window = Window.new(@options[:bulk])
    requests = Enumerator.new do |stream|
      paths.each_with_index do |path, index|
        break unless window.enter

        stream << Pipeline::ProcessStreamRequest.new(job: bulk_job(index, path))
      end
    rescue SystemCallError => e
      @unreadable = e # Told once the jobs before it are finished.
    end
    # How large the largest job is, is not known yet: files are read one by one.
    metadata = { 'sluiceway-priority' => 'bulk' }
    @stub.process_stream(requests, return_op: true, metadata: metadata)
  end

  def bulk_job(index, path)
    options = Pipeline::ProcessOptions.new(priority: :PRIORITY_BULK)
    job = Pipeline::ProcessRequest.new(job_id: "job-#{index}", sources: [source(path)], options: options)
    if @options[:timeout]
      # The deadline of the stream would end it with all its jobs.
      seconds, rest = @options[:timeout].divmod(1)
      job.timeout = Google::Protobuf::Duration.new(seconds: seconds, nanos: (rest * 1e9).round)
    end
    job
  end

  # Writes a line for each thing that an event tells. Returns how many sources or jobs it says have failed.
  def print_event(response)
    source = response.source_id
    case response.event
    when :source_ready
      line 'source_ready', source, response.source_ready.size_bytes
    when :regions
      print_regions(source, response.regions)
    when :values
      print_values(source, response.values)
    when :done
      line 'done', source, response.done.reading_order.to_a.join(' ')
    when :failed
      line 'failed', source, response.failed.error.reason, response.failed.error.message
      return 1
    when :job_done
      line 'job_done', response.job_id, response.job_done.succeeded, response.job_done.failed
    when :job_refused
      error = response.job_refused.error
      line 'refused', response.job_id, error.reason, error.retry_after_ms, error.message
      return 1
    end # anything else is an event that this program is too old for
    0
  end

  def print_regions(source, found)
    line 'regions', source, found.page.width, found.page.height, found.regions.size
    found.regions.each do |region|
      kind, numbers = shape(region.geometry)
      # A newer server may know shapes that this program does not.
      line kind, source, region.id, join(numbers), region.class_name, format('%.4f', region.confidence) if kind
      # Where each point is and how sure the model is that it can be seen.
      points = region.keypoints.flat_map { |point| [point.x, point.y, point.confidence] }
      line 'keypoints', source, region.id, join(points) unless points.empty?
    end
  end

  def join(numbers)
    numbers.map { |number| format('%.2f', number) }.join(' ')
  end

  # What a region looks like: the edges of an upright box, or the corners of another shape.
  def shape(geometry)
    case geometry&.shape
    when :box
      box = geometry.box
      ['box', [box.x0, box.y0, box.x1, box.y1]]
    when :rotated_box
      ['outline', corners(geometry.rotated_box)]
    when :polygon
      ['outline', geometry.polygon.points.flat_map { |point| [point.x, point.y] }]
    end
  end

  # Clockwise from the one that is top left without the turn; y grows downwards.
  def corners(box)
    angle = box.angle_degrees * Math::PI / 180
    cos = Math.cos(angle)
    sin = Math.sin(angle)
    [[-1, -1], [1, -1], [1, 1], [-1, 1]].flat_map do |right, down|
      x = right * box.width / 2
      y = down * box.height / 2
      [box.center.x + (x * cos) - (y * sin), box.center.y + (x * sin) + (y * cos)]
    end
  end

  def print_values(source, said)
    # What is about a page or the source names no region.
    return print_page_class(source, said) if said.subject == :SUBJECT_PAGE
    return unless %i[SUBJECT_UNSPECIFIED SUBJECT_REGION].include?(said.subject)

    said.values.each do |value|
      line 'text', source, value.region_id, format('%.4f', value.text.confidence), value.text.text if value.text
      best = value.classification&.labels&.first
      line 'class', source, value.region_id, format('%.4f', best.confidence), best.class_name if best
    end
  end

  def print_page_class(source, said)
    best = said.values.first&.classification&.labels&.first
    line 'page_class', source, said.page, format('%.4f', best.confidence), best.class_name if best
  end
end

def line(*fields)
  puts fields.join("\t")
end

# Writes what the server said: the code, Sluiceway's stable reason, and when to try again.
def print_error(error)
  details = error.to_rpc_status&.details || []
  info = details.filter_map { |detail| detail.unpack(Google::Rpc::ErrorInfo) }.first
  retry_info = details.filter_map { |detail| detail.unpack(Google::Rpc::RetryInfo) }.first
  delay = retry_info&.retry_delay
  retry_ms = delay ? (delay.seconds * 1000) + (delay.nanos / 1_000_000) : 0
  line 'error', error.class.name.split('::').last, info&.reason || '-', retry_ms, error.details
  info&.metadata&.each { |key, value| line 'error_metadata', key, value }
end

$stdout.sync = true
options = { address: 'localhost:50051' }
parser = OptionParser.new do |o|
  o.banner = 'usage: sluiceway-client [options] IMAGE...'
  o.on('--address HOST:PORT', 'the server (localhost:50051)')
  o.on('--ca FILE', 'use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent')
  o.on('--cert FILE', "the client's own certificate (mutual TLS)")
  o.on('--key FILE', 'its private key')
  o.on('--timeout SECONDS', Float, 'deadline of the call, or of each job with --bulk')
  o.on('--cancel-after N', Integer, 'cancel the call after N events')
  o.on('--bulk N', Integer, 'one job an image over one stream, at most N jobs unfinished')
end
paths = parser.parse(ARGV, into: options)
if paths.empty?
  warn parser.help
  exit 2
end
begin
  exit Client.new(options).run(paths)
rescue GRPC::BadStatus => e
  print_error(e)
  exit 1
rescue SystemCallError => e
  abort e.message
end
