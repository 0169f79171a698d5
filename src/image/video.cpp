// video: the only file that knows FFmpeg. Frame numbers count what the decoder puts out, which is presentation order.
#include "image/video.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libswscale/swscale.h>
}

#include <ATen/ops/empty.h>
#include <ATen/ops/rot90.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/threads.h"
#include "image/format.h"

namespace statera {
namespace {

// Containers that carry their own frames; playlists and concatenations would name other files.
constexpr const char* kContainers = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,gif,ogg,asf,h264,hevc,ivf,nut,apng";
constexpr int kIoBuffer = 1 << 16;

std::string av_text(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(code, text, sizeof text);
  return text;
}

struct Source {
  std::span<const std::byte> bytes;
  int64_t at = 0;
};

int read_source(void* user, uint8_t* to, int wanted) {
  auto* s = static_cast<Source*>(user);
  const int64_t left = static_cast<int64_t>(s->bytes.size()) - s->at;
  if (left <= 0) return AVERROR_EOF;
  const int64_t n = std::min<int64_t>(left, wanted);
  std::memcpy(to, s->bytes.data() + s->at, static_cast<size_t>(n));
  s->at += n;
  return static_cast<int>(n);
}

int64_t seek_source(void* user, int64_t offset, int whence) {
  auto* s = static_cast<Source*>(user);
  const int64_t size = static_cast<int64_t>(s->bytes.size());
  if (whence == AVSEEK_SIZE) return size;
  whence &= ~AVSEEK_FORCE;
  const int64_t base = whence == SEEK_CUR ? s->at : whence == SEEK_END ? size : 0;
  if (base + offset < 0 || base + offset > size) return AVERROR(EINVAL);
  return s->at = base + offset;
}

struct FreePacket {
  void operator()(AVPacket* p) const { av_packet_free(&p); }
};
struct FreeFrame {
  void operator()(AVFrame* f) const { av_frame_free(&f); }
};
struct FreeDecoder {
  void operator()(AVCodecContext* c) const { avcodec_free_context(&c); }
};
struct FreeIo {
  void operator()(AVIOContext* c) const {
    av_freep(&c->buffer);
    avio_context_free(&c);
  }
};
struct CloseInput {
  void operator()(AVFormatContext* c) const { avformat_close_input(&c); }
};
struct FreeScaler {
  void operator()(SwsContext* c) const { sws_freeContext(c); }
};

// One pass over the container.
struct Demuxer {
  Source source;
  std::unique_ptr<AVIOContext, FreeIo> io;
  std::unique_ptr<AVFormatContext, CloseInput> format;
  AVStream* stream = nullptr;
  const AVCodec* codec = nullptr;

  explicit Demuxer(std::span<const std::byte> bytes) : source{bytes, 0} {
    auto* buffer = static_cast<unsigned char*>(av_malloc(kIoBuffer));
    io.reset(avio_alloc_context(buffer, kIoBuffer, 0, &source, read_source, nullptr, seek_source));
    AVFormatContext* context = avformat_alloc_context();
    check(io && context, "FFmpeg: out of memory");
    context->pb = io.get();
    context->flags |= AVFMT_FLAG_CUSTOM_IO;
    AVDictionary* limits = nullptr;
    av_dict_set(&limits, "format_whitelist", kContainers, 0);
    av_dict_set(&limits, "protocol_whitelist", "none", 0);
    int code = avformat_open_input(&context, nullptr, nullptr, &limits);  // frees context when it fails
    av_dict_free(&limits);
    if (code < 0) throw Error(ErrorKind::bad_file, "not a video: " + av_text(code));
    format.reset(context);
    if ((code = avformat_find_stream_info(context, nullptr)) < 0) throw Error(ErrorKind::bad_file, "damaged video: " + av_text(code));
    const int index = av_find_best_stream(context, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (index == AVERROR_DECODER_NOT_FOUND) throw Error(ErrorKind::unsupported, "no decoder for this video's codec");
    if (index < 0) throw Error(ErrorKind::bad_file, "no video stream");
    stream = context->streams[index];
    for (unsigned i = 0; i < context->nb_streams; ++i) {
      if (context->streams[i] != stream) context->streams[i]->discard = AVDISCARD_ALL;
    }
  }
};

double average_fps(const AVStream& stream) {
  for (AVRational rate : {stream.avg_frame_rate, stream.r_frame_rate}) {
    if (rate.num > 0 && rate.den > 0) return av_q2d(rate);
  }
  return 0;
}

// Quarter turns counter-clockwise that the container asks for.
int quarter_turns(const AVStream& stream) {
  size_t size = 0;
  const uint8_t* matrix = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (!matrix || size < 9 * sizeof(int32_t)) return 0;
  const double angle = av_display_rotation_get(reinterpret_cast<const int32_t*>(matrix));
  if (std::isnan(angle)) return 0;
  return ((static_cast<int>(std::lround(angle / 90)) % 4) + 4) % 4;
}

// Decoded frame -> RGB. Unspecified colour matrices count as BT.601, as swscale's users in the reference have it.
class Converter {
 public:
  at::Tensor operator()(const AVFrame& frame, int turns) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    SwsContext* again = sws_getCachedContext(x_scaler.release(), frame.width, frame.height, format, frame.width, frame.height, AV_PIX_FMT_RGB24,
                                             SWS_BILINEAR, nullptr, nullptr, nullptr);
    if (!again) throw Error(ErrorKind::unsupported, "no conversion of this video's pixel format to RGB");
    x_scaler.reset(again);
    set_matrix(frame);
    // swscale may write whole vectors: lines are padded, then copied.
    const int stride = (3 * frame.width + 63) / 64 * 64 + 64;
    x_lines.resize(static_cast<size_t>(stride) * static_cast<size_t>(frame.height) + 64);
    uint8_t* const planes[4] = {x_lines.data(), nullptr, nullptr, nullptr};
    const int strides[4] = {stride, 0, 0, 0};
    sws_scale(again, frame.data, frame.linesize, 0, frame.height, planes, strides);
    at::Tensor out = at::empty({frame.height, frame.width, 3}, at::kByte);
    uint8_t* to = out.mutable_data_ptr<uint8_t>();
    const size_t line = static_cast<size_t>(frame.width) * 3;
    for (int y = 0; y < frame.height; ++y) std::memcpy(to + static_cast<size_t>(y) * line, x_lines.data() + static_cast<size_t>(y) * static_cast<size_t>(stride), line);
    return turns == 0 ? out : at::rot90(out, turns, {0, 1}).contiguous();
  }

 private:
  void set_matrix(const AVFrame& frame) {
    int *from = nullptr, *to = nullptr, from_range = 0, to_range = 0, brightness = 0, contrast = 0, saturation = 0;
    if (sws_getColorspaceDetails(x_scaler.get(), &from, &from_range, &to, &to_range, &brightness, &contrast, &saturation) < 0) return;
    const int matrix = frame.colorspace == AVCOL_SPC_UNSPECIFIED || frame.colorspace == AVCOL_SPC_RGB ? SWS_CS_DEFAULT : static_cast<int>(frame.colorspace);
    if (frame.color_range == AVCOL_RANGE_JPEG) from_range = 1;
    sws_setColorspaceDetails(x_scaler.get(), sws_getCoefficients(matrix), from_range, sws_getCoefficients(SWS_CS_DEFAULT), to_range, brightness,
                             contrast, saturation);
  }

  std::unique_ptr<SwsContext, FreeScaler> x_scaler;
  std::vector<uint8_t> x_lines;
};

std::unique_ptr<AVCodecContext, FreeDecoder> open_decoder(const Demuxer& in) {
  std::unique_ptr<AVCodecContext, FreeDecoder> decoder(avcodec_alloc_context3(in.codec));
  check(decoder != nullptr, "FFmpeg: out of memory");
  int code = avcodec_parameters_to_context(decoder.get(), in.stream->codecpar);
  decoder->pkt_timebase = in.stream->time_base;
  decoder->thread_count = std::min(num_threads(), 16);
  if (code >= 0) code = avcodec_open2(decoder.get(), in.codec, nullptr);
  if (code < 0) throw Error(ErrorKind::unsupported, "cannot decode this video: " + av_text(code));
  return decoder;
}

}  // namespace

struct VideoFile::Impl {
  std::string name, bytes;
  MappedFile file;
  VideoInfo info;
  std::span<const std::byte> view() const {
    return file.data() ? file.bytes() : std::span<const std::byte>(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  }
  void inspect(int64_t max_pixels);
};

void VideoFile::Impl::inspect(int64_t max_pixels) {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_level(AV_LOG_QUIET); });
  if (view().empty()) throw Error(ErrorKind::bad_file, "empty, not a video");
  Demuxer in(view());
  const AVCodecParameters& p = *in.stream->codecpar;
  if (p.width < 1 || p.height < 1) throw Error(ErrorKind::bad_file, "damaged video: no frame size");
  if (p.width > max_pixels / p.height) {
    throw Error(ErrorKind::bad_file, fmt::format("frames of {}x{} pixels exceed the limit of {}", p.width, p.height, max_pixels));
  }
  const bool turned = quarter_turns(*in.stream) % 2 == 1;
  info.width = turned ? p.height : p.width;
  info.height = turned ? p.width : p.height;
  std::unique_ptr<AVPacket, FreePacket> packet(av_packet_alloc());
  int code = 0;
  bool corrupt = false;
  while ((code = av_read_frame(in.format.get(), packet.get())) >= 0) {
    if (packet->stream_index == in.stream->index) {
      if (!(packet->flags & AV_PKT_FLAG_DISCARD)) ++info.frames;
      corrupt = corrupt || (packet->flags & AV_PKT_FLAG_CORRUPT);
    }
    av_packet_unref(packet.get());
  }
  if (code != AVERROR_EOF || corrupt) throw Error(ErrorKind::bad_file, fmt::format("truncated or damaged video after {} frames", info.frames));
  info.fps = average_fps(*in.stream);
  if (info.frames == 0) throw Error(ErrorKind::bad_file, "a video without frames");
  if (!(info.fps > 0)) throw Error(ErrorKind::bad_file, "a video without a frame rate");
}

VideoFile::VideoFile(std::unique_ptr<Impl> impl) : x_impl(std::move(impl)) {}
VideoFile::VideoFile(VideoFile&&) noexcept = default;
VideoFile& VideoFile::operator=(VideoFile&&) noexcept = default;
VideoFile::~VideoFile() = default;
const VideoInfo& VideoFile::info() const { return x_impl->info; }
const std::string& VideoFile::name() const { return x_impl->name; }

VideoFile VideoFile::open(const std::string& path, int64_t max_pixels) {
  auto impl = std::make_unique<Impl>();
  impl->name = path;
  if (is_directory(path)) throw Error(ErrorKind::bad_file, path + ": is a folder, not a video");
  impl->file = MappedFile(path);
  with_context(path, [&] { impl->inspect(max_pixels); });
  return VideoFile(std::move(impl));
}

VideoFile VideoFile::from_bytes(std::string bytes, const std::string& name, int64_t max_pixels) {
  auto impl = std::make_unique<Impl>();
  impl->name = name;
  impl->bytes = std::move(bytes);
  with_context(name, [&] { impl->inspect(max_pixels); });
  return VideoFile(std::move(impl));
}

void VideoFile::read(const std::vector<int64_t>& indices, const std::function<void(int64_t, const at::Tensor&)>& sink) {
  std::multimap<int64_t, int64_t> wanted;  // frame number -> position in indices
  for (size_t i = 0; i < indices.size(); ++i) {
    check(indices[i] >= 0 && indices[i] < info().frames, "VideoFile::read: frame index");
    wanted.emplace(indices[i], static_cast<int64_t>(i));
  }
  if (x_impl->file.data()) x_impl->file.check_not_truncated();
  with_context(name(), [&] {
    Demuxer in(x_impl->view());
    auto decoder = open_decoder(in);
    std::unique_ptr<AVPacket, FreePacket> packet(av_packet_alloc());
    std::unique_ptr<AVFrame, FreeFrame> frame(av_frame_alloc());
    Converter convert;
    const int turns = quarter_turns(*in.stream);
    auto next = wanted.begin();
    int64_t number = 0;
    auto drain = [&] {
      while (next != wanted.end() && avcodec_receive_frame(decoder.get(), frame.get()) >= 0) {
        if (next->first == number) {
          const at::Tensor rgb = convert(*frame, turns);
          for (; next != wanted.end() && next->first == number; ++next) sink(next->second, rgb);
        }
        ++number;
      }
    };
    while (next != wanted.end() && av_read_frame(in.format.get(), packet.get()) >= 0) {
      // A packet the decoder rejects loses its frame; the count below then says so.
      if (packet->stream_index == in.stream->index && avcodec_send_packet(decoder.get(), packet.get()) >= 0) drain();
      av_packet_unref(packet.get());
    }
    if (next != wanted.end() && avcodec_send_packet(decoder.get(), nullptr) >= 0) drain();
    if (next != wanted.end()) {
      throw Error(ErrorKind::bad_file, fmt::format("truncated or damaged video: frame {} of {} cannot be decoded", next->first, info().frames));
    }
  });
}

void check_forced_video_reader() {
  const char* reader = std::getenv("FORCE_QWENVL_VIDEO_READER");
  if (!reader) return;
  for (const char* known : {"torchcodec", "decord", "torchvision"}) {
    if (std::strcmp(reader, known) == 0) return;
  }
  throw Error(ErrorKind::usage, fmt::format("FORCE_QWENVL_VIDEO_READER=\"{}\": torchcodec, decord and torchvision are known (one reader, FFmpeg, serves all)", reader));
}

}  // namespace statera
