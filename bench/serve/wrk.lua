-- Cycles over prepared bodies, each thread from a place of its own, and prints one line of JSON.
-- Used as: wrk ... -s wrk.lua URL -- BODIES

local bodies, place, started = {}, 0, 0

function setup(thread)
   started = started + 1
   thread:set("first", started * 97)
end

function init(arguments)
   local headers = { ["Content-Type"] = "application/json" }
   for line in io.lines(arguments[1]) do
      bodies[#bodies + 1] = wrk.format("POST", nil, headers, line)
   end
   place = first % #bodies
end

function request()
   place = place % #bodies + 1
   return bodies[place]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"answered": %d, "requests": %d, "requests_per_second": %.1f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "bytes": %d, "refused": %d, "failed": %d}\n',
      summary.requests, summary.requests, summary.requests / summary.duration * 1e6,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
      summary.bytes, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
