// Weight gradient of a 3x3 convolution (padding 1, stride 1) on AMX tiles, from bf16 operands with channels last.
//
// For one shift of the kernel, the gradient is a matrix product over all positions. Inputs are transposed once per image
// into padded planes, channel by channel, so that each of the nine shifts is the same array read from another offset;
// output gradients are interleaved by pairs of positions, as the tile product wants them. Positions in the padding have
// a zero output gradient.
#include <cstdint>

struct Shape {  // of one convolution; `images` counts all time steps
    int64_t images, height, width, in_channels, out_channels;
    int32_t threads;
};

#if defined(__AMX_BF16__) && defined(__AVX512BW__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int TILE = 16;                     // channels of a tile
constexpr int DEPTH = 32;                    // positions that one tile product sums over
constexpr int64_t BLOCK_BYTES = 768 * 1024;  // of packed operands: they stay in the second-level cache
constexpr int64_t CHUNK = 256;               // positions whose tiles stay in the first-level cache for all nine shifts

typedef uint16_t half;

struct Geometry {
    int64_t images, height, width, in, out;
    int64_t row;        // length of a padded row
    int64_t positions;  // of one image that are summed over, a multiple of DEPTH
    int64_t plane;      // length of one padded channel, with room to read past its end
    int64_t block;      // images packed at once
    Geometry(const Shape& s)
        : images(s.images), height(s.height), width(s.width), in(s.in_channels), out(s.out_channels), row(s.width + 2),
          positions(whole(s.height * row)), plane(whole(positions + 2 * (row + 1))) {
        block = std::max<int64_t>(1, std::min(images, BLOCK_BYTES / (2 * (in * plane + out * positions))));
    }
    static int64_t whole(int64_t n) { return (n + DEPTH - 1) / DEPTH * DEPTH; }
    // Where the input under position (0, 0) and an element of the kernel is.
    int64_t offset(int64_t shift) const { return shift / 3 * row + shift % 3; }
};

// Operands of a block of images. Padding is zeroed once and never written.
struct Packed {
    const Geometry& g;
    int64_t channel;  // distance between two channels: an odd number of cache lines, so that they do not collide
    std::vector<half> inputs, gradients;
    Packed(const Geometry& g) : g(g), channel(g.block * g.plane) {
        if (channel / DEPTH % 2 == 0) channel += DEPTH;
        inputs.assign(g.in * channel, 0);
        gradients.assign(g.block * g.positions * g.out, 0);
    }
    half* input(int64_t image, int64_t c) { return inputs.data() + c * channel + image * g.plane; }
    // Sixteen channels after the other; two positions of each channel lie together.
    half* gradient(int64_t image, int64_t c) {
        return gradients.data() + (c / TILE * g.block + image) * g.positions * TILE;
    }
};

// Eight positions of eight channels, from rows of channels to rows of positions.
inline void transpose(const half* from, int64_t from_row, half* to, int64_t to_row) {
    __m128i r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = _mm_loadu_si128((const __m128i*)(from + i * from_row));
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            r[4 * i + 2 * k] = _mm_unpacklo_epi32(s[4 * i + k], s[4 * i + 2 + k]);
            r[4 * i + 2 * k + 1] = _mm_unpackhi_epi32(s[4 * i + k], s[4 * i + 2 + k]);
        }
    for (int i = 0; i < 4; i++) {
        _mm_storeu_si128((__m128i*)(to + 2 * i * to_row), _mm_unpacklo_epi64(r[i], r[4 + i]));
        _mm_storeu_si128((__m128i*)(to + (2 * i + 1) * to_row), _mm_unpackhi_epi64(r[i], r[4 + i]));
    }
}

void pack_input(const Geometry& g, const half* image, half* to, int64_t channel) {
    for (int64_t h = 0; h < g.height; h++) {
        const half* from = image + h * g.width * g.in;
        half* row = to + (h + 1) * g.row + 1;
        int64_t w = 0;
        for (; w + 8 <= g.width; w += 8)
            for (int64_t c = 0; c < g.in; c += 8) transpose(from + w * g.in + c, g.in, row + c * channel + w, channel);
        for (; w < g.width; w++)
            for (int64_t c = 0; c < g.in; c++) row[c * channel + w] = from[w * g.in + c];
    }
}

void pack_gradient(const Geometry& g, const half* image, half* to, int64_t panel) {
    for (int64_t h = 0; h < g.height; h++) {
        const half* from = image + h * g.width * g.out;
        const int64_t start = h * g.row, end = start + g.width;
        for (int64_t k = start; k < end; k++) {
            const half* one = from + (k - start) * g.out;
            const bool alone = k % 2 == 1 || k + 1 == end;  // its partner lies in the padding
            for (int64_t c = 0; c < g.out; c += TILE) {
                half* pair = to + c / TILE * panel + k / 2 * 2 * TILE;
                if (alone) {
                    for (int64_t lane = 0; lane < TILE; lane++) pair[2 * lane + k % 2] = one[c + lane];
                    continue;
                }
                __m256i a = _mm256_loadu_si256((const __m256i*)(one + c));
                __m256i b = _mm256_loadu_si256((const __m256i*)(one + g.out + c));
                __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
                _mm256_storeu_si256((__m256i*)pair, _mm256_permute2x128_si256(low, high, 0x20));
                _mm256_storeu_si256((__m256i*)(pair + TILE), _mm256_permute2x128_si256(low, high, 0x31));
            }
            if (!alone) k++;
        }
    }
}

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    TileConfig() {
        for (int i = 0; i < 8; i++) bytes[i] = 64, rows[i] = TILE;
    }
};

// sums[shift, ci, co] += inputs^T gradients over a block of images.
struct Product {
    const Geometry& g;
    Packed& packed;
    int64_t images;
    float* sums;

    struct Chunk {
        int64_t image, images, position, positions;
    };
    const half* left(const Chunk& chunk, int64_t c, int64_t shift) const {
        return packed.input(chunk.image, c) + chunk.position + g.offset(shift);
    }
    const half* right(const Chunk& chunk, int64_t c) const {
        return packed.gradient(chunk.image, c) + chunk.position * TILE;
    }
    float* sum(int64_t shift, int64_t ci, int64_t co) const { return sums + (shift * g.in + ci) * g.out + co; }

    // 32 input by 32 output channels at one shift.
    void add(const Chunk& chunk, int64_t ci, int64_t co, int64_t shift) const {
        const int64_t a_row = packed.channel * 2, c_row = g.out * 4, a_image = g.plane;
        const half *a0 = left(chunk, ci, shift), *a1 = left(chunk, ci + TILE, shift);
        const half *b0 = right(chunk, co), *b1 = right(chunk, co + TILE);
        float *c0 = sum(shift, ci, co), *c1 = sum(shift, ci + TILE, co);
        _tile_loadd(0, c0, c_row);
        _tile_loadd(1, c0 + TILE, c_row);
        _tile_loadd(2, c1, c_row);
        _tile_loadd(3, c1 + TILE, c_row);
        for (int64_t image = 0; image < chunk.images; image++) {
            for (int64_t p = 0; p < chunk.positions; p += DEPTH) {
                _tile_loadd(6, b0 + p * TILE, 64);
                _tile_loadd(4, a0 + p, a_row);
                _tile_loadd(7, b1 + p * TILE, 64);
                _tile_loadd(5, a1 + p, a_row);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            a0 += a_image, a1 += a_image, b0 += g.positions * TILE, b1 += g.positions * TILE;
        }
        _tile_stored(0, c0, c_row);
        _tile_stored(1, c0 + TILE, c_row);
        _tile_stored(2, c1, c_row);
        _tile_stored(3, c1 + TILE, c_row);
    }

    void all_shifts(const Chunk& chunk) const {
        for (int64_t ci = 0; ci < g.in; ci += 2 * TILE)
            for (int64_t co = 0; co < g.out; co += 2 * TILE)
                for (int64_t shift = 0; shift < 9; shift++) add(chunk, ci, co, shift);
    }

    void run() const {
        const int64_t together = std::max<int64_t>(1, CHUNK / g.positions);
        for (int64_t image = 0; image < images; image += together)
            for (int64_t p = 0; p < g.positions; p += CHUNK)
                all_shifts({image, std::min(together, images - image), p, std::min(CHUNK, g.positions - p)});
    }
};

void work(const Geometry& g, const half* x, const half* grad, int64_t begin, int64_t end, float* sums) {
    static const TileConfig config;
    _tile_loadconfig(&config);
    Packed packed(g);
    for (int64_t first = begin; first < end; first += g.block) {
        const int64_t images = std::min(g.block, end - first);
        for (int64_t i = 0; i < images; i++) {
            pack_input(g, x + (first + i) * g.height * g.width * g.in, packed.input(i, 0), packed.channel);
            pack_gradient(g, grad + (first + i) * g.height * g.width * g.out, packed.gradient(i, 0), g.block * g.positions * TILE);
        }
        Product{g, packed, images, sums}.run();
    }
    _tile_release();
}

}  // namespace

// Linux gives a process the tile registers when it asks for them.
extern "C" int tdsnn_weight_gradient_ready() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// sums (3, 3, Ci, Co) of x (images, H, W, Ci) and grad (images, H, W, Co); channel counts are multiples of 32.
extern "C" void tdsnn_weight_gradient(const Shape* s, const void* x, const void* grad, float* sums) {
    const Geometry g(*s);
    const int64_t size = 9 * g.in * g.out;
    const int threads = (int)std::max<int64_t>(1, std::min<int64_t>(s->threads, g.images));
    std::vector<float> others((threads - 1) * size, 0);
    std::fill(sums, sums + size, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++)
        work(g, (const half*)x, (const half*)grad, g.images * k / threads, g.images * (k + 1) / threads,
             k ? others.data() + (k - 1) * size : sums);
    // In a fixed order, so that the same call gives the same bits.
    for (int k = 1; k < threads; k++)
        for (int64_t i = 0; i < size; i++) sums[i] += others[(k - 1) * size + i];
}

#else

extern "C" int tdsnn_weight_gradient_ready() { return 0; }
extern "C" void tdsnn_weight_gradient(const Shape*, const void*, const void*, float*) {}

#endif
