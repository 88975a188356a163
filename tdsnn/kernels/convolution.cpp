// Weight gradient of a 3x3 convolution (padding 1, stride 1 or 2) on AMX tiles, from bf16 operands with channels last.
//
// For one place of the kernel, the gradient is a matrix product over all output positions. The positions of several
// images form one stream, with one column of padding between rows and one row between images, where the output gradient
// is zero. Each of the nine places then reads the input's stream from another offset; with stride 2 there is one stream
// for every parity of row and column. Tiles take one operand with pairs of positions interleaved, so inputs are packed
// twice, for even and for odd offsets, and every tile is 16 whole cache lines in a row.
#include <cstdint>

struct Shape {  // of one convolution; `images` counts all time steps
    int64_t images, height, width, in_channels, out_channels, stride;
    int32_t threads;
};

#if defined(__AMX_BF16__) && defined(__AVX512BW__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

namespace {

constexpr int TILE = 16;                     // channels of a tile
constexpr int GROUP = 2 * TILE;              // channels that four tiles of sums take from either operand
constexpr int SIZE = TILE * TILE;            // numbers in a tile of sums
constexpr int DEPTH = 32;                    // positions that one tile product sums over
constexpr int PLACES = 9;                    // of the kernel
constexpr int64_t BLOCK_BYTES = 768 * 1024;  // of packed operands, unless one image takes more: for a second-level cache
constexpr int64_t CHUNK = 256;               // positions: the tiles of a stream and their gradients fit a first-level cache

typedef uint16_t half;

// Memory that begins with a cache line, with nothing in it yet.
template <typename T>
class Lines {
    std::unique_ptr<T, decltype(&std::free)> first;

   public:
    explicit Lines(int64_t size) : first((T*)std::aligned_alloc(64, (size * sizeof(T) + 63) / 64 * 64), &std::free) {
        if (!first) throw std::bad_alloc();
    }
    T* data() { return first.get(); }
};

struct Geometry {
    int64_t images, height, width, in, out, stride;
    int64_t out_height, out_width;
    int64_t row, image;  // lengths in a stream, with padding
    int64_t block;       // images packed at once, of one thread's share
    int64_t positions;   // of a block, in whole tiles
    int64_t stream;      // positions of an input stream, which is read from an offset
    Geometry(const Shape& s, int64_t share)
        : images(s.images), height(s.height), width(s.width), in(s.in_channels), out(s.out_channels), stride(s.stride),
          out_height((height - 1) / stride + 1), out_width((width - 1) / stride + 1), row(out_width + 1),
          image((out_height + 1) * row) {
        const int64_t fitting = BLOCK_BYTES / (2 * image * (2 * in * phases() + out));
        block = std::max<int64_t>(1, std::min(share, fitting));
        positions = whole(block * image);
        stream = positions + whole(2 * (row + 1));
    }
    static int64_t whole(int64_t n) { return (n + DEPTH - 1) / DEPTH * DEPTH; }
    int64_t phases() const { return stride * stride; }
    // The stream in which a row and column of the padded input are, and where.
    int64_t phase(int64_t h, int64_t w) const { return h % stride * stride + w % stride; }
    int64_t offset(int64_t h, int64_t w) const { return h / stride * row + w / stride; }
};

// For each position of a stream, where its channels begin in a block of images; padding is a row of zeros.
class Rows {
    std::vector<int64_t> begin;
    std::vector<const half*> rows;
    std::vector<half> zeros;

   public:
    Rows(int64_t size, int64_t channels) : begin(size, -1), rows(size), zeros(channels, 0) {}
    int64_t& operator[](int64_t k) { return begin[k]; }
    const half* const* of(const half* block, int64_t size) {
        for (size_t k = 0; k < begin.size(); k++)
            rows[k] = begin[k] >= 0 && begin[k] < size ? block + begin[k] : zeros.data();
        return rows.data();
    }
};

Rows input_rows(const Geometry& g, int64_t phase) {
    Rows rows(g.stream + 2, g.in);
    for (int64_t i = 0; i < g.block; i++)
        for (int64_t h = 0; h < g.height; h++)
            for (int64_t w = 0; w < g.width; w++)
                if (g.phase(h + 1, w + 1) == phase)
                    rows[i * g.image + g.offset(h + 1, w + 1)] = ((i * g.height + h) * g.width + w) * g.in;
    return rows;
}

Rows gradient_rows(const Geometry& g) {
    Rows rows(g.positions, g.out);
    for (int64_t i = 0; i < g.block; i++)
        for (int64_t h = 0; h < g.out_height; h++)
            for (int64_t w = 0; w < g.out_width; w++)
                rows[i * g.image + h * g.row + w] = ((i * g.out_height + h) * g.out_width + w) * g.out;
    return rows;
}

// Eight channels from `c` on of 32 positions, from rows of channels to rows of positions.
inline void transpose(const half* const* rows, int64_t c, half* to) {
    __m512i r[8], s[8];
    const auto load = [&](int k) { return _mm_loadu_si128((const __m128i*)(rows[k] + c)); };
    for (int i = 0; i < 8; i++) {  // a lane holds one of the positions i, i + 8, i + 16 and i + 24
        r[i] = _mm512_castsi128_si512(load(i));
        r[i] = _mm512_mask_broadcast_i32x4(r[i], 0x00f0, load(i + 8));
        r[i] = _mm512_mask_broadcast_i32x4(r[i], 0x0f00, load(i + 16));
        r[i] = _mm512_mask_broadcast_i32x4(r[i], 0xf000, load(i + 24));
    }
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm512_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm512_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            r[4 * i + 2 * k] = _mm512_unpacklo_epi32(s[4 * i + k], s[4 * i + 2 + k]);
            r[4 * i + 2 * k + 1] = _mm512_unpackhi_epi32(s[4 * i + k], s[4 * i + 2 + k]);
        }
    for (int i = 0; i < 4; i++) {
        _mm512_store_si512(to + 2 * i * DEPTH, _mm512_unpacklo_epi64(r[i], r[4 + i]));
        _mm512_store_si512(to + (2 * i + 1) * DEPTH, _mm512_unpackhi_epi64(r[i], r[4 + i]));
    }
}

// Tiles of 16 channels with a row of positions each.
void pack_gradient(const Geometry& g, const half* const* rows, half* to) {
    for (int64_t p = 0; p < g.positions; p += DEPTH)
        for (int64_t c = 0; c < g.out; c += 8)
            transpose(rows + p, c, to + c / TILE * TILE * g.positions + p * TILE + c % TILE * DEPTH);
}

// Rows of sixteen channels, each with two neighbouring positions; the first of them is even in `even`.
void pack_input(const Geometry& g, const half* const* rows, half* even, half* odd) {
    for (int64_t c = 0; c < g.in; c += GROUP) {
        half *to_even = even + c * g.stream, *to_odd = odd + c * g.stream;
        const int64_t second = TILE * g.stream;
        const auto load = [&](int64_t p) { return _mm512_loadu_si512(rows[p] + c); };
        __m512i a = load(0);
        for (int64_t p = 0; p < g.stream; p += 2) {
            // Unpacking within lanes leaves the channels in another order, see `column`.
            const __m512i b = load(p + 1), next = load(p + 2);
            _mm512_store_si512(to_even + p * TILE, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(to_even + second + p * TILE, _mm512_unpackhi_epi16(a, b));
            _mm512_store_si512(to_odd + p * TILE, _mm512_unpacklo_epi16(b, next));
            _mm512_store_si512(to_odd + second + p * TILE, _mm512_unpackhi_epi16(b, next));
            a = next;
        }
    }
}

// Where pack_input puts four channels in a row out of 32.
inline int64_t column(int64_t ci) { return ci / 4 % 2 * TILE + ci / 8 * 4; }

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    TileConfig() {
        for (int i = 0; i < 8; i++) bytes[i] = 64, rows[i] = TILE;
    }
};

// One thread's share: packed operands of a block of images, and the sums over all of its blocks.
struct Share {
    const Geometry& g;
    Lines<half> inputs, gradients;
    Lines<float> sums;  // tiles of 16 output by 16 input channels: [co / 32, ci / 32, place, 2, 2]
    explicit Share(const Geometry& g)
        : g(g), inputs(g.phases() * 2 * g.in * g.stream), gradients(g.out * g.positions), sums(PLACES * g.in * g.out) {
        std::fill(sums.data(), sums.data() + PLACES * g.in * g.out, 0.0f);
    }

    half* input(int64_t phase, int64_t odd) { return inputs.data() + (phase * 2 + odd) * g.in * g.stream; }
    float* sum(int64_t co, int64_t ci, int64_t place) {
        const int64_t group = (co / GROUP * (g.in / GROUP) + ci / GROUP) * PLACES + place, k = column(ci % GROUP);
        return sums.data() + ((group * 2 + co % GROUP / TILE) * 2 + k / TILE) * SIZE + k % TILE;
    }

    // 32 output by 32 input channels at one place of the kernel, positions begin to end.
    void add(int64_t co, int64_t ci, int64_t place, int64_t begin, int64_t end) {
        const int64_t offset = g.offset(place / 3, place % 3);
        const half *a0 = gradients.data() + co * g.positions, *a1 = a0 + TILE * g.positions;
        const half* b0 = input(g.phase(place / 3, place % 3), offset % 2) + ci * g.stream + offset / 2 * 2 * TILE;
        const half* b1 = b0 + TILE * g.stream;
        float* c = sum(co, ci, place);
        _tile_loadd(0, c, 64);
        _tile_loadd(1, c + SIZE, 64);
        _tile_loadd(2, c + 2 * SIZE, 64);
        _tile_loadd(3, c + 3 * SIZE, 64);
        for (int64_t p = begin; p < end; p += DEPTH) {
            _tile_loadd(6, b0 + p * TILE, 64);
            _tile_loadd(4, a0 + p * TILE, 64);
            _tile_loadd(7, b1 + p * TILE, 64);
            _tile_loadd(5, a1 + p * TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, c, 64);
        _tile_stored(1, c + SIZE, 64);
        _tile_stored(2, c + 2 * SIZE, 64);
        _tile_stored(3, c + 3 * SIZE, 64);
    }

    // Input channels outermost: with many channels only their part of the sums fits the second-level cache.
    void add_block(int64_t positions) {
        for (int64_t ci = 0; ci < g.in; ci += GROUP)
            for (int64_t p = 0; p < positions; p += CHUNK)
                for (int64_t co = 0; co < g.out; co += GROUP)
                    for (int64_t odd = 0; odd < 2; odd++)
                        for (int64_t place = 0; place < PLACES; place++)
                            if (g.offset(place / 3, place % 3) % 2 == odd)
                                add(co, ci, place, p, std::min(p + CHUNK, positions));
    }

    void run(const half* x, const half* grad, int64_t begin, int64_t end) {
        static const TileConfig config;
        _tile_loadconfig(&config);
        std::vector<Rows> phases;
        for (int64_t phase = 0; phase < g.phases(); phase++) phases.push_back(input_rows(g, phase));
        Rows outputs = gradient_rows(g);
        const int64_t x_size = g.height * g.width * g.in, grad_size = g.out_height * g.out_width * g.out;
        for (int64_t first = begin; first < end; first += g.block) {
            const int64_t images = std::min(g.block, end - first);
            for (int64_t phase = 0; phase < g.phases(); phase++) {
                const half* const* rows = phases[phase].of(x + first * x_size, images * x_size);
                pack_input(g, rows, input(phase, 0), input(phase, 1));
            }
            pack_gradient(g, outputs.of(grad + first * grad_size, images * grad_size), gradients.data());
            add_block(Geometry::whole(images * g.image));
        }
        _tile_release();
    }
};

}  // namespace

// Linux gives a process the tile registers when it asks for them.
extern "C" int tdsnn_weight_gradient_ready() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// to (Co, 3, 3, Ci) of x (images, H, W, Ci) and grad (images, H', W', Co); channel counts are multiples of 32.
extern "C" void tdsnn_weight_gradient(const Shape* s, const void* x, const void* grad, float* to) {
    const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(s->threads, s->images));
    const Geometry g(*s, (s->images + threads - 1) / threads);
    std::vector<std::optional<Share>> shares(threads);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static, 1)
        for (int64_t k = 0; k < threads; k++)
            shares[k].emplace(g).run((const half*)x, (const half*)grad, g.images * k / threads, g.images * (k + 1) / threads);
        // The threads' sums in a fixed order, so that the same call gives the same bits.
#pragma omp for schedule(static)
        for (int64_t co = 0; co < g.out; co++)
            for (int64_t place = 0; place < PLACES; place++)
                for (int64_t ci = 0; ci < g.in; ci += 4) {
                    float total[4] = {};
                    for (auto& share : shares) {
                        const float* part = share->sum(co, ci, place) + co % TILE * TILE;
                        for (int k = 0; k < 4; k++) total[k] += part[k];
                    }
                    std::copy(total, total + 4, to + (co * PLACES + place) * g.in + ci);
                }
    }
}

#else

extern "C" int tdsnn_weight_gradient_ready() { return 0; }
extern "C" void tdsnn_weight_gradient(const Shape*, const void*, const void*, float*) {}

#endif
