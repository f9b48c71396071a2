# One event of the pipeline in, lines of tab-separated fields out. An unknown event gives no line.
def fixed($digits): (if . < 0 then "-" else "" end) as $sign | (fabs * pow(10; $digits) | round) as $scaled
  | $sign + ($scaled / pow(10; $digits) | floor | tostring) + "." + ("0000" + ($scaled % pow(10; $digits) | tostring))[-$digits:];
def fields: map(tostring) | join("\t");

# The edges of an upright box, or the corners of another shape; those of a turned box clockwise from the one that is top
# left without the turn (y grows downwards). What is 0 may be left out.
def numbers_of:
  if .box then .box | .x0, .y0, .x1, .y1 | . // 0
  elif .rotated_box then .rotated_box
    | ((.angle_degrees // 0) * 3.141592653589793 / 180) as $angle | ($angle | sin) as $sin | ($angle | cos) as $cos
    | (.center.x // 0) as $x | (.center.y // 0) as $y | (.width // 0) as $width | (.height // 0) as $height
    | ([-1, -1], [1, -1], [1, 1], [-1, 1]) as [$right, $down]
    | ($right * $width / 2) as $dx | ($down * $height / 2) as $dy
    | $x + $dx * $cos - $dy * $sin, $y + $dx * $sin + $dy * $cos
  elif .polygon then .polygon.points[] | .x, .y | . // 0
  else empty end;

# The first label of a classification, the most probable; nothing of another value.
def best: .classification.labels[0]? // empty;

# Tools write the names of fields as in the protos or in lowerCamelCase, by what the server's descriptors say.
walk(if type == "object"
  then with_entries(.key |= gsub("(?<letter>[A-Z])"; "_" + (.letter | ascii_downcase))) else . end)
| (.event? // .) as $event | $event.source_id as $source
| if $event.source_ready then ["source_ready", $source, $event.source_ready.size_bytes] | fields
  elif $event.regions then $event.regions
    | (["regions", $source, .page.width, .page.height, (.regions | length)] | fields),
      (.regions[]
        # A newer server may know shapes that this program does not.
        | ([.geometry | numbers_of | fixed(2)] as $numbers | select($numbers != [])
          | [if .geometry.box then "box" else "outline" end, $source, .id, ($numbers | join(" ")), .class_name,
             (.confidence | fixed(4))] | fields),
          # Where each point is and how sure the model is that it can be seen.
          ([.keypoints[]? | .x, .y, .confidence | . // 0 | fixed(2)] as $points | select($points != [])
          | ["keypoints", $source, .id, ($points | join(" "))] | fields))
  # What is about a page or the source names no region.
  elif $event.values then $event.values | .page as $page
    | if .subject == "SUBJECT_PAGE" then
        .values[] | best | ["page_class", $source, ($page // 0), (.confidence // 0 | fixed(4)), .class_name] | fields
      else select(.subject | IN("SUBJECT_UNSPECIFIED", "SUBJECT_REGION")) | .values[]
        | (select(.text) | ["text", $source, .region_id, (.text.confidence | fixed(4)), .text.text] | fields),
          ((.region_id // 0) as $region | best
            | ["class", $source, $region, (.confidence // 0 | fixed(4)), .class_name] | fields)
      end
  elif $event.done then ["done", $source, ($event.done.reading_order | map(tostring) | join(" "))] | fields
  elif $event.failed then ["failed", $source, $event.failed.error.reason, $event.failed.error.message] | fields
  elif $event.job_done then ["job_done", $event.job_id, $event.job_done.succeeded, $event.job_done.failed] | fields
  elif $event.job_refused then $event.job_refused.error
    | ["refused", $event.job_id, .reason, .retry_after_ms, .message] | fields
  else empty end
