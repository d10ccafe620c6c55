/* A run of the decoder for one instruction set: included once for each, with NAME() to tell them apart and the
   primitives of that set before it (load_bytes, spread, repeat, dot, fma, quarter, ZERO_8, TOGETHER; TERMS where it has
   more than one). What it is given as macros is undefined at its end. Everything else is GCC's and Clang's vectors.

   A token's result never depends on the number of threads, nor on which other ones are fed with it, if all of them are
   few (GROUP) or all many, in the last layer those with scores: each row of a product and each block of attention is
   computed in one piece, in one order. */

typedef float NAME(Floats) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(Ints) __attribute__((vector_size(4 * LANES)));
typedef int8_t NAME(Small) __attribute__((vector_size(LANES)));
#define FLOATS NAME(Floats)
#define INTS NAME(Ints)
#define FOUR Four
#define INLINE static inline __attribute__((always_inline))

INLINE FLOATS NAME(load)(const float* from) {
  FLOATS x;
  memcpy(&x, from, sizeof x);
  return x;
}
INLINE void NAME(store)(float* to, FLOATS x) { memcpy(to, &x, sizeof x); }
INLINE FLOATS NAME(all)(float x) { return x - (FLOATS){0}; }
INLINE INTS NAME(all_int)(int32_t x) { return x - (INTS){0}; }
INLINE FLOATS NAME(greater)(FLOATS a, FLOATS b) {
  const INTS is = a > b;
  return (FLOATS)((is & (INTS)a) | (~is & (INTS)b));
}

/* sums of four vectors, one in each lane */
INLINE FOUR NAME(sum_each)(FLOATS a, FLOATS b, FLOATS c, FLOATS d) {
  const FOUR one = NAME(quarter)(a), two = NAME(quarter)(b), three = NAME(quarter)(c), four = NAME(quarter)(d);
  const FOUR low = MIX(one, two, 0, 4, 1, 5) + MIX(one, two, 2, 6, 3, 7);
  const FOUR high = MIX(three, four, 0, 4, 1, 5) + MIX(three, four, 2, 6, 3, 7);
  return MIX(low, high, 0, 1, 4, 5) + MIX(low, high, 2, 3, 6, 7);
}
INLINE float NAME(sum)(FLOATS x) {
  const FLOATS none = {0};
  return NAME(sum_each)(x, none, none, none)[0];
}

/* the greatest lane, none of which is no number */
INLINE float NAME(greatest)(FLOATS x) {
  FOUR parts[LANES / 4];
  memcpy(parts, &x, sizeof x);
  FOUR most = parts[0];
  for (int i = 1; i < LANES / 4; i++) {
    const Four_ints is = most > parts[i];
    most = (FOUR)((is & (Four_ints)most) | (~is & (Four_ints)parts[i]));
  }
  const float even = most[0] > most[2] ? most[0] : most[2], odd = most[1] > most[3] ? most[1] : most[3];
  return even > odd ? even : odd;
}

/* e^x for x <= 88, to 2 units in the last place: 2^n times a polynomial of degree 6 (Cephes, expf). 0 below -87.7, and
   no number where x is none. */
INLINE FLOATS NAME(exp)(FLOATS x) {
  x = NAME(greater)(NAME(all)(-88.0f), x);
  const FLOATS magic = NAME(all)(12582912.0f); /* 1.5 * 2^23 rounds to an integer */
  const FLOATS n = NAME(fma)(x, NAME(all)(1.44269504f), magic) - magic;
  const FLOATS r = NAME(fma)(n, NAME(all)(2.12194440e-4f), NAME(fma)(n, NAME(all)(-0.693359375f), x));
  FLOATS p = NAME(fma)(r, NAME(all)(1.9875691500e-4f), NAME(all)(1.3981999507e-3f));
  p = NAME(fma)(p, r, NAME(all)(8.3334519073e-3f));
  p = NAME(fma)(p, r, NAME(all)(4.1665795894e-2f));
  p = NAME(fma)(p, r, NAME(all)(1.6666665459e-1f));
  p = NAME(fma)(p, r, NAME(all)(5.0000001201e-1f));
  p = NAME(fma)(p, r * r, r) + 1.0f;
  const INTS power = (__builtin_convertvector(n, INTS) + 127) << 23;
  FLOATS scale;
  memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

/* ---- activations ---- */

/* x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019) */
APART void NAME(norm)(const float* x, const float* weight, int n, float epsilon, float* to) {
  FLOATS squares = {0};
  for (int i = 0; i < n; i += LANES) {
    const FLOATS part = NAME(load)(x + i);
    squares = NAME(fma)(part, part, squares);
  }
  const float factor = 1.0f / sqrtf(NAME(sum)(squares) / (float)n + epsilon);
  for (int i = 0; i < n; i += LANES) NAME(store)(to + i, NAME(load)(x + i) * factor * NAME(load)(weight + i));
}

/* gate / (1 + e^-gate) * up */
APART void NAME(gate)(const float* gate, const float* up, int n, float* to) {
  for (int i = 0; i < n; i += LANES) {
    const FLOATS x = NAME(load)(gate + i);
    const FLOATS most = -NAME(greater)(x, NAME(all)(-88.0f));
    NAME(store)(to + i, x / (1.0f + NAME(exp)(most)) * NAME(load)(up + i));
  }
}

/* One block as int8, with its scale and what the weights' zero adds up to */
INLINE void NAME(quantize_block)(const float* x, const int block, const int bits, int8_t* to, float* scale,
                                 int32_t* offset) {
  FLOATS most = {0}, none = {0}; /* 0, or not a number where a value is none: it is to reach the scores */
  for (int i = 0; i < block; i += LANES) {
    const FLOATS part = NAME(load)(x + i);
    most = NAME(greater)(NAME(greater)(part, -part), most);
    none += part - part;
  }
  const float greatest = NAME(greatest)(most);
  const float inverse = greatest > LEAST ? 127.0f / greatest : 0.0f;
  INTS total = {0};
  for (int i = 0; i < block; i += LANES) {
    const FLOATS magic = NAME(all)(12582912.0f);
    const FLOATS whole = (NAME(load)(x + i) * inverse + magic) - magic; /* -127 in the place of no number */
    const INTS values = __builtin_convertvector(NAME(greater)(whole, NAME(all)(-127.0f)), INTS);
    const NAME(Small) bytes = __builtin_convertvector(values, NAME(Small));
    memcpy(to + i, &bytes, sizeof bytes);
    total += values;
  }
  const int sum = (int)NAME(sum)(__builtin_convertvector(total, FLOATS)); /* exact: below 2^24 */
  *scale = greatest / 127.0f + NAME(sum)(none);
  *offset = -sum * (bits == 4 ? 8 : ZERO_8);
}

/* ---- products of few tokens ---- */

#define CHUNK_BYTES (4 * LANES) /* of a row of weights that are multiplied at once */

/* One token's activations for a chunk of weights: `values` as the weights lie in memory (4 bits: those of the low
   halves, then those of the high ones), `offset` what the weights' zero adds up to, `scale` that of each lane's block
 */
typedef struct {
  int8_t values[2 * CHUNK_BYTES];
  int32_t offset[LANES];
  float scale[LANES];
} NAME(Chunk);
#define CHUNK NAME(Chunk)

INLINE int NAME(n_chunks)(const Product* product) {
  return (product->k * product->bits / 8 + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

/* Quantize a token for `product` */
APART void NAME(quantize)(const float* x, const Product* product, CHUNK* chunks) {
  const int of_lane = 32 / product->bits, lanes = product->block / of_lane;
  memset(chunks, 0, sizeof(CHUNK) * (size_t)NAME(n_chunks)(product));
  for (int start = 0; start < product->k; start += product->block) {
    int8_t values[2 * MOST_BYTES];
    float scale;
    int32_t offset;
    NAME(quantize_block)(x + start, product->block, product->bits, values, &scale, &offset);
    for (int i = 0; i < lanes; i++) {
      CHUNK* chunk = chunks + (start / of_lane + i) / LANES;
      const int lane = (start / of_lane + i) % LANES;
      chunk->scale[lane] = scale;
      chunk->offset[lane] = i ? 0 : offset; /* the first one has that of all */
      for (int j = 0; j < 4; j++) {
        chunk->values[4 * lane + j] = product->bits == 4 ? values[8 * i + 2 * j] : values[4 * i + j];
        if (product->bits == 4) chunk->values[CHUNK_BYTES + 4 * lane + j] = values[8 * i + 2 * j + 1];
      }
    }
  }
}

/* What is the same for all rows of a product */
typedef struct {
  int64_t row_bytes, row_scales;
  int n_chunks, lanes, n_scales, shift, last_bytes, last_scales;
} NAME(Form);

INLINE NAME(Form) NAME(form)(const Product* product) {
  NAME(Form) form;
  const int lanes = product->block * product->bits / 32; /* that share a scale */
  form.row_bytes = product->k * product->bits / 8;
  form.row_scales = product->k / product->block;
  form.n_chunks = NAME(n_chunks)(product);
  form.lanes = lanes < LANES ? lanes : LANES;
  form.n_scales = LANES / form.lanes;
  form.shift = __builtin_ctz((unsigned)(lanes / form.lanes)); /* 2^shift chunks share a scale */
  form.last_bytes = (int)form.row_bytes - (form.n_chunks - 1) * CHUNK_BYTES;
  form.last_scales = (int)form.row_scales - ((form.n_chunks - 1) >> form.shift) * form.n_scales;
  return form;
}

/* A tile of rows of weights and tokens: written out, so that all sums stay in registers */
#define BEGIN(i)                                                          \
  const int row##i = row + i < to ? row + i : to - 1;                     \
  const uint8_t* weights##i = product->weights + row##i * form.row_bytes; \
  const float* scales##i = product->scales + row##i * form.row_scales;
#define WEIGHTS(i, bits)                                                             \
  const NAME(Bytes) packed##i = NAME(load_part)(weights##i + c * CHUNK_BYTES, part); \
  const NAME(Bytes) low##i = bits == 4 ? NAME(low)(packed##i) : packed##i;           \
  const NAME(Bytes) high##i = bits == 4 ? NAME(high)(packed##i) : packed##i;         \
  const FLOATS spread##i = NAME(spread)(scales##i + (c >> form.shift) * form.n_scales, part, places);
#define TOKEN(j)                                                                  \
  const CHUNK* chunk##j = chunks + (int64_t)j * stride + c;                       \
  const FLOATS scale##j = NAME(load)(chunk##j->scale);                            \
  const NAME(Bytes) first##j = NAME(load_bytes)(chunk##j->values);                \
  const NAME(Bytes) second##j = NAME(load_bytes)(chunk##j->values + CHUNK_BYTES); \
  INTS offset##j;                                                                 \
  memcpy(&offset##j, chunk##j->offset, sizeof offset##j);
#define TIMES(i, j, bits)                                                                                       \
  total##i##j = NAME(fma)(                                                                                      \
      __builtin_convertvector(bits == 4 ? NAME(dot)(NAME(dot)(offset##j, low##i, first##j), high##i, second##j) \
                                        : NAME(dot_8)(offset##j, low##i, first##j),                             \
                              FLOATS),                                                                          \
      spread##i * scale##j, total##i##j);
#define PUT(i, j, sum)                                \
  if (row + i < to) {                                 \
    float* place = out + j * out_stride + row##i;     \
    float made = sum;                                 \
    if (product->bias) made += product->bias[row##i]; \
    *place = adds ? *place + made : made;             \
  }
#define PUT_FOUR(j, sums)                                                       \
  if (row + 4 <= to) {                                                          \
    float* place = out + j * out_stride + row;                                  \
    FOUR made = sums, other;                                                    \
    if (product->bias) {                                                        \
      memcpy(&other, product->bias + row, sizeof other);                        \
      made += other;                                                            \
    }                                                                           \
    if (adds) {                                                                 \
      memcpy(&other, place, sizeof other);                                      \
      made += other;                                                            \
    }                                                                           \
    memcpy(place, &made, sizeof made);                                          \
  } else {                                                                      \
    PUT(0, j, sums[0]) PUT(1, j, sums[1]) PUT(2, j, sums[2]) PUT(3, j, sums[3]) \
  }
#define CHUNKS                              \
  for (int c = 0; c < form.n_chunks; c++) { \
    const NAME(Part) part = c < form.n_chunks - 1 ? whole : last;
#define TILE(name)                                                                                             \
  APART void NAME(name)(const Product* product, int from, int to, const CHUNK* chunks, int stride, float* out, \
                        int64_t out_stride, int adds)
#define FORM                                                             \
  const NAME(Form) form = NAME(form)(product);                           \
  const NAME(Part) whole = NAME(part)(CHUNK_BYTES, form.n_scales);       \
  const NAME(Part) last = NAME(part)(form.last_bytes, form.last_scales); \
  const NAME(Places) places = NAME(places)(form.lanes);
/* Few tokens go through one row after another, as memory gives them. */
#define TILES(bits)                                                                                               \
  TILE(tile_1_##bits) {                                                                                           \
    FORM for (int row = from; row < to; row += 4) {                                                               \
      FLOATS total00 = {0}, total10 = {0}, total20 = {0}, total30 = {0};                                          \
      BEGIN(0) BEGIN(1) BEGIN(2) BEGIN(3) CHUNKS WEIGHTS(0, bits) TOKEN(0) TIMES(0, 0, bits)                      \
    }                                                                                                             \
    CHUNKS WEIGHTS(1, bits) TOKEN(0) TIMES(1, 0, bits)                                                            \
  }                                                                                                               \
  CHUNKS WEIGHTS(2, bits) TOKEN(0) TIMES(2, 0, bits)                                                              \
  }                                                                                                               \
  CHUNKS WEIGHTS(3, bits) TOKEN(0) TIMES(3, 0, bits)                                                              \
  }                                                                                                               \
  const FOUR sums = NAME(sum_each)(total00, total10, total20, total30);                                           \
  PUT_FOUR(0, sums)                                                                                               \
  }                                                                                                               \
  }                                                                                                               \
  TILE(tile_2_##bits) {                                                                                           \
    FORM for (int row = from; row < to; row += 2) {                                                               \
      FLOATS total00 = {0}, total10 = {0}, total01 = {0}, total11 = {0};                                          \
      BEGIN(0) BEGIN(1) CHUNKS WEIGHTS(0, bits) TOKEN(0) TOKEN(1) TIMES(0, 0, bits) TIMES(0, 1, bits)             \
    }                                                                                                             \
    CHUNKS WEIGHTS(1, bits) TOKEN(0) TOKEN(1) TIMES(1, 0, bits) TIMES(1, 1, bits)                                 \
  }                                                                                                               \
  const FOUR sums = NAME(sum_each)(total00, total10, total01, total11);                                           \
  PUT(0, 0, sums[0]) PUT(1, 0, sums[1]) PUT(0, 1, sums[2]) PUT(1, 1, sums[3])                                     \
  }                                                                                                               \
  }                                                                                                               \
  TILE(tile_4_##bits) {                                                                                           \
    FORM for (int row = from; row < to; row++) {                                                                  \
      FLOATS total00 = {0}, total01 = {0}, total02 = {0}, total03 = {0};                                          \
      BEGIN(0)                                                                                                    \
      CHUNKS                                                                                                      \
      WEIGHTS(0, bits)                                                                                            \
      TOKEN(0) TOKEN(1) TOKEN(2) TOKEN(3) TIMES(0, 0, bits) TIMES(0, 1, bits) TIMES(0, 2, bits) TIMES(0, 3, bits) \
    }                                                                                                             \
    const FOUR sums = NAME(sum_each)(total00, total01, total02, total03);                                         \
    PUT(0, 0, sums[0]) PUT(0, 1, sums[1]) PUT(0, 2, sums[2]) PUT(0, 3, sums[3])                                   \
  }                                                                                                               \
  }
TILES(4)
TILES(8)
#undef BEGIN
#undef WEIGHTS
#undef TOKEN
#undef TIMES
#undef PUT
#undef PUT_FOUR
#undef CHUNKS
#undef TILE
#undef FORM
#undef TILES

/* Rows `from` to `to` of a product with few tokens. What comes out is added to what is there, or not. A row's sum with
   a token is made in one order whatever stands beside it. */
static void NAME(rows)(const Product* product, int from, int to, const CHUNK* chunks, int stride, int n_tokens,
                       float* out, int64_t out_stride, int adds) {
  typedef void Tile(const Product*, int, int, const CHUNK*, int, float*, int64_t, int);
  static Tile* const kinds[2][3] = {{NAME(tile_1_4), NAME(tile_2_4), NAME(tile_4_4)},
                                    {NAME(tile_1_8), NAME(tile_2_8), NAME(tile_4_8)}};
  for (int t = 0; t < n_tokens;) {
    const int kind = n_tokens - t >= 4 ? 2 : n_tokens - t >= 2 ? 1 : 0;
    kinds[product->bits == 8][kind](product, from, to, chunks + (int64_t)t * stride, stride, out + t * out_stride,
                                    out_stride, adds);
    t += 1 << kind;
  }
}

/* ---- products of many tokens: a lane is a row of weights, which are laid out anew for it ---- */

/* One token's activations, quantized, among those of N_TOGETHER tokens that are multiplied together: `values`
   [k / 4, N_TOGETHER, 4], where weights of 4 bits lie every second of eight side by side, as low and high halves of
   their bytes; and of each block [k / block, N_TOGETHER] the scale and what the weights' zero adds up to */
typedef struct {
  int8_t* values;
  float* scales;
  int32_t* offsets;
} NAME(Token);

INLINE int64_t NAME(token_bytes)(const Product* product) {
  return (product->k + 8 * (product->k / product->block) + 63) / 64 * 64;
}

INLINE NAME(Token) NAME(token)(const Product* product, const void* room, int token) {
  const int among = token % N_TOGETHER;
  int8_t* values = (int8_t*)room + (token - among) * NAME(token_bytes)(product);
  float* scales = (float*)(values + (int64_t)product->k * N_TOGETHER);
  int32_t* offsets = (int32_t*)(scales + (int64_t)(product->k / product->block) * N_TOGETHER);
  return (NAME(Token)){values + 4 * among, scales + among, offsets + among};
}

/* Of each eight values, put every second one before the others */
INLINE void NAME(part_halves)(int8_t* values, int n) {
  for (int i = 0; i < n; i += 16) {
    Eight_pairs pairs;
    memcpy(&pairs, values + i, 16);
    const Eight_bytes even = __builtin_convertvector(pairs & 255, Eight_bytes),
                      odd = __builtin_convertvector(pairs >> 8, Eight_bytes);
    memcpy(values + i, &even, 4);
    memcpy(values + i + 4, &odd, 4);
    memcpy(values + i + 8, (const uint8_t*)&even + 4, 4);
    memcpy(values + i + 12, (const uint8_t*)&odd + 4, 4);
  }
}

INLINE void NAME(quantize_blocks)(const float* x, int n_blocks, const int block, const int bits, NAME(Token) token) {
  for (int i = 0; i < n_blocks; i++) {
    int8_t values[2 * MOST_BYTES], *to = token.values + (int64_t)i * block * N_TOGETHER;
    NAME(quantize_block)(x + i * block, block, bits, values, token.scales + i * N_TOGETHER,
                         token.offsets + i * N_TOGETHER);
    if (bits == 4) NAME(part_halves)(values, block);
    for (int j = 0; j < block; j += 4) memcpy(to + j * N_TOGETHER, values + j, 4);
  }
}

APART void NAME(quantize_token)(const float* x, const Product* product, NAME(Token) token) {
  const int n_blocks = product->k / product->block;
  if (product->block == 32 && product->bits == 4) { /* the commonest, without loops over it */
    NAME(quantize_blocks)(x, n_blocks, 32, 4, token);
  } else {
    NAME(quantize_blocks)(x, n_blocks, product->block, product->bits, token);
  }
}

/* Put four rows of `n` times four bytes into four lanes */
INLINE void NAME(turn_rows)(const uint8_t* const* rows, int n, uint8_t* lanes) {
  int i = 0;
  for (; i + 4 <= n; i += 4) { /* only moved: any bits are kept */
    FOUR a, b, c, d;
    memcpy(&a, rows[0] + 4 * i, 16);
    memcpy(&b, rows[1] + 4 * i, 16);
    memcpy(&c, rows[2] + 4 * i, 16);
    memcpy(&d, rows[3] + 4 * i, 16);
    const FOUR low = MIX(a, b, 0, 4, 1, 5), high = MIX(a, b, 2, 6, 3, 7);
    const FOUR low2 = MIX(c, d, 0, 4, 1, 5), high2 = MIX(c, d, 2, 6, 3, 7);
    const FOUR turned[4] = {MIX(low, low2, 0, 1, 4, 5), MIX(low, low2, 2, 3, 6, 7), MIX(high, high2, 0, 1, 4, 5),
                            MIX(high, high2, 2, 3, 6, 7)};
    for (int j = 0; j < 4; j++) memcpy(lanes + (int64_t)(i + j) * LANES * 4, turned + j, 16);
  }
  for (; i < n; i++)
    for (int lane = 0; lane < 4; lane++) memcpy(lanes + ((int64_t)i * LANES + lane) * 4, rows[lane] + 4 * i, 4);
}

/* Lay out LANES rows from `row` on: bytes [k / 4, LANES, 4] in the order of a token's values, then scales
   [k / block, LANES]. Those from `to` on are of no use. */
APART void NAME(pack)(const Product* product, int row, int to, uint8_t* bytes, float* scales) {
  const int n_blocks = product->k / product->block, n_fours = product->k * product->bits / 32;
  uint8_t* packed = bytes + (product->bits == 4 ? (int64_t)n_fours * LANES * 4 : 0); /* 4 bits: the second half */
  for (int lane = 0; lane < LANES; lane += 4) {
    const uint8_t *rows[4], *given[4];
    for (int i = 0; i < 4; i++) {
      const int64_t from = row + lane + i < to ? row + lane + i : row;
      rows[i] = product->weights + from * n_fours * 4;
      given[i] = (const uint8_t*)(product->scales + from * n_blocks);
    }
    NAME(turn_rows)(rows, n_fours, packed + lane * 4);
    NAME(turn_rows)(given, n_blocks, (uint8_t*)(scales + lane));
  }
  for (int i = 0; product->bits == 4 && i < n_fours; i++) { /* what is overwritten has been read */
    const NAME(Bytes) both = NAME(load_bytes)((const int8_t*)packed + (int64_t)i * LANES * 4);
    const NAME(Bytes) low = NAME(low)(both), high = NAME(high)(both);
    memcpy(bytes + (int64_t)(2 * i) * LANES * 4, &low, sizeof low);
    memcpy(bytes + (int64_t)(2 * i + 1) * LANES * 4, &high, sizeof high);
  }
}

#define BEGIN(j) FLOATS total##j = {0};
#define OFFSET(j) INTS sum##j = NAME(all_int)(tokens.offsets[j]);
#define DOT_4(j) sum##j = NAME(dot)(sum##j, weights, NAME(repeat)(tokens.values + 4 * j));
#define DOT_8(j) sum##j = NAME(dot_8)(sum##j, weights, NAME(repeat)(tokens.values + 4 * j));
#define SCALE(j) total##j = NAME(fma)(__builtin_convertvector(sum##j, FLOATS), scale * tokens.scales[j], total##j);
#define PUT(j)                                                                         \
  if (j < n) {                                                                         \
    float* place = out + (int64_t)(first + j) * product->n + row;                      \
    const FLOATS made = total##j + bias;                                               \
    if (n_rows == LANES) {                                                             \
      NAME(store)(place, adds ? NAME(load)(place) + made : made);                      \
    } else {                                                                           \
      for (int i = 0; i < n_rows; i++) place[i] = adds ? place[i] + made[i] : made[i]; \
    }                                                                                  \
  }
#define MANY(bits)                                                                                                     \
  APART void NAME(many_##bits)(const Product* product, int row, int n_rows, const uint8_t* bytes, const float* scales, \
                               const void* room, int first, int n, float* out, int adds) {                             \
    NAME(Token) tokens = NAME(token)(product, room, first);                                                            \
    TOGETHER(BEGIN)                                                                                                    \
    for (int blocks = product->k / product->block; blocks; blocks--) {                                                 \
      const FLOATS scale = NAME(load)(scales);                                                                         \
      TOGETHER(OFFSET)                                                                                                 \
      for (int fours = product->block / 4; fours; fours--) {                                                           \
        const NAME(Bytes) weights = NAME(load_bytes)((const int8_t*)bytes);                                            \
        TOGETHER(DOT_##bits)                                                                                           \
        bytes += 4 * LANES;                                                                                            \
        tokens.values += 4 * N_TOGETHER;                                                                               \
      }                                                                                                                \
      TOGETHER(SCALE)                                                                                                  \
      scales += LANES;                                                                                                 \
      tokens.scales += N_TOGETHER;                                                                                     \
      tokens.offsets += N_TOGETHER;                                                                                    \
    }                                                                                                                  \
    FLOATS bias = {0};                                                                                                 \
    for (int i = 0; product->bias && i < n_rows; i++) bias[i] = product->bias[row + i];                                \
    TOGETHER(PUT)                                                                                                      \
  }
MANY(4)
MANY(8)
#undef BEGIN
#undef OFFSET
#undef DOT_4
#undef DOT_8
#undef SCALE
#undef PUT
#undef MANY

/* LANES rows from `row` on with all of many tokens */
static void NAME(rows_of_many)(const Product* product, int row, const void* room, int n_tokens, float* out, int adds,
                               float* own) {
  uint8_t* bytes = (uint8_t*)own;
  float* scales = (float*)(bytes + (int64_t)product->k * LANES);
  const int n_rows = product->n - row < LANES ? product->n - row : LANES;
  NAME(pack)(product, row, row + n_rows, bytes, scales);
  for (int t = 0; t < n_tokens; t += N_TOGETHER) {
    const int n = n_tokens - t < N_TOGETHER ? n_tokens - t : N_TOGETHER;
    (product->bits == 4 ? NAME(many_4) : NAME(many_8))(product, row, n_rows, bytes, scales, room, t, n, out, adds);
  }
}

/* ---- attention ---- */

/* Bring `n` halves into the second cache */
INLINE void NAME(fetch)(const uint16_t* from, int n) {
  for (int i = 0; i < n; i += 32) __builtin_prefetch(from + i, 0, 2);
}

/* Widen `n` keys or values from half precision */
INLINE void NAME(widen_all)(const uint16_t* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += LANES) NAME(store)(to + i, NAME(widen)(from + i));
}

/* Scores of one query with positions `at` to `at` + 3; those from `end` on are of no use */
INLINE FOUR NAME(compare)(const float* query, const float* keys, int at, int end, int head_dim) {
  const float *key0 = keys + (int64_t)at * head_dim, *key1 = at + 1 < end ? key0 + head_dim : key0;
  const float *key2 = at + 2 < end ? key0 + 2 * head_dim : key0, *key3 = at + 3 < end ? key0 + 3 * head_dim : key0;
  FLOATS sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
  for (int d = 0; d < head_dim; d += LANES) {
    const FLOATS part = NAME(load)(query + d);
    sum0 = NAME(fma)(NAME(load)(key0 + d), part, sum0);
    sum1 = NAME(fma)(NAME(load)(key1 + d), part, sum1);
    sum2 = NAME(fma)(NAME(load)(key2 + d), part, sum2);
    sum3 = NAME(fma)(NAME(load)(key3 + d), part, sum3);
  }
  return NAME(sum_each)(sum0, sum1, sum2, sum3);
}

/* For `n_rows` queries [head_dim], already scaled, attend to positions 0 to limits[i] - 1 (BLOCK at most) of a block:
   greatest score, sum of exponentials and their weighted values, behind each other in partial + i * (head_dim + 2) */
INLINE void NAME(attend_dim)(const float* const* queries, const int* limits, int n_rows, const uint16_t* keys,
                             const uint16_t* values, const int head_dim, float* scores, float* wide, float* partial) {
  int longest = 0;
  for (int i = 0; i < n_rows; i++) longest = limits[i] > longest ? limits[i] : longest;
  for (int start = 0; start < longest; start += SPAN) {
    const int last = longest < start + SPAN ? longest : start + SPAN;
    NAME(widen_all)(keys + (int64_t)start * head_dim, (int64_t)(last - start) * head_dim, wide);
    for (int i = 0; i < n_rows; i++) {
      const int end = (limits[i] < last ? limits[i] : last) - start;
      for (int at = 0; at < end; at += 4) {
        if (i == 0) NAME(fetch)(keys + (int64_t)(start + SPAN + at) * head_dim, 4 * head_dim);
        if (i == n_rows - 1) NAME(fetch)(values + (int64_t)(start + at) * head_dim, 4 * head_dim);
        const FOUR found = NAME(compare)(queries[i], wide, at, end, head_dim);
        memcpy(scores + i * BLOCK + start + at, &found, sizeof found);
      }
    }
  }
  for (int i = 0; i < n_rows; i++) {
    float *row = scores + i * BLOCK, *to = partial + i * (head_dim + 2);
    const int n = (limits[i] + LANES - 1) / LANES * LANES;
    for (int at = limits[i]; at < n; at++) row[at] = -1e30f;
    FLOATS most = NAME(all)(-1e30f), total = {0};
    for (int at = 0; at < n; at += LANES) most = NAME(greater)(NAME(load)(row + at), most);
    float greatest = -1e30f;
    for (int lane = 0; lane < LANES; lane++) greatest = most[lane] > greatest ? most[lane] : greatest;
    for (int at = 0; at < n; at += LANES) {
      const FLOATS power = NAME(exp)(NAME(load)(row + at) - greatest);
      total += power;
      NAME(store)(row + at, power);
    }
    to[0] = greatest;
    to[1] = NAME(sum)(total);
    memset(to + 2, 0, sizeof(float) * (size_t)head_dim);
  }
  for (int start = 0; start < longest; start += SPAN) {
    const int last = longest < start + SPAN ? longest : start + SPAN;
    NAME(widen_all)(values + (int64_t)start * head_dim, (int64_t)(last - start) * head_dim, wide);
    for (int i = 0; i < n_rows; i++) {
      const int end = (limits[i] < last ? limits[i] : last) - start;
      const float* row = scores + i * BLOCK + start;
      float* to = partial + i * (head_dim + 2) + 2;
      int d = 0;
      for (; d + 4 * LANES <= head_dim; d += 4 * LANES) {
        float* place = to + d;
        FLOATS sum0 = NAME(load)(place), sum1 = NAME(load)(place + LANES), sum2 = NAME(load)(place + 2 * LANES),
               sum3 = NAME(load)(place + 3 * LANES);
        for (int at = 0; at < end; at++) {
          const float* value = wide + at * head_dim + d;
          const FLOATS weight = NAME(all)(row[at]);
          sum0 = NAME(fma)(NAME(load)(value), weight, sum0);
          sum1 = NAME(fma)(NAME(load)(value + LANES), weight, sum1);
          sum2 = NAME(fma)(NAME(load)(value + 2 * LANES), weight, sum2);
          sum3 = NAME(fma)(NAME(load)(value + 3 * LANES), weight, sum3);
        }
        NAME(store)(place, sum0);
        NAME(store)(place + LANES, sum1);
        NAME(store)(place + 2 * LANES, sum2);
        NAME(store)(place + 3 * LANES, sum3);
      }
      for (; d < head_dim; d += LANES) {
        FLOATS a = NAME(load)(to + d);
        for (int at = 0; at < end; at++) a = NAME(fma)(NAME(load)(wide + at * head_dim + d), NAME(all)(row[at]), a);
        NAME(store)(to + d, a);
      }
    }
  }
}

APART void NAME(attend)(const float* const* queries, const int* limits, int n_rows, const uint16_t* keys,
                        const uint16_t* values, int head_dim, float* room, float* partial) {
  float *scores = room, *wide = room + MAX_QUERIES * BLOCK; /* [SPAN, head_dim] */
  if (head_dim == 64) {                                     /* the commonest, without loops over it */
    NAME(attend_dim)(queries, limits, n_rows, keys, values, 64, scores, wide, partial);
  } else {
    NAME(attend_dim)(queries, limits, n_rows, keys, values, head_dim, scores, wide, partial);
  }
}

/* Add one block's partial sums to another's (Dao 2023, FlashAttention-2, section 3.1, for the blocks of one row) */
APART void NAME(merge)(float* into, const float* from, int head_dim) {
  const float greatest = into[0] > from[0] ? into[0] : from[0];
  const float here = expf(into[0] - greatest), there = expf(from[0] - greatest);
  into[0] = greatest;
  into[1] = into[1] * here + from[1] * there;
  for (int d = 2; d < head_dim + 2; d += LANES)
    NAME(store)(into + d, NAME(fma)(NAME(load)(into + d), NAME(all)(here), NAME(load)(from + d) * there));
}

/* Rotate halves by position (Su et al. 2021); what lies behind the rotated part stays */
APART void NAME(turn)(float* head, const float* cos, const float* sin, int half) {
  int i = 0;
  for (; i + LANES <= half; i += LANES) {
    const FLOATS first = NAME(load)(head + i), second = NAME(load)(head + half + i);
    const FLOATS c = NAME(load)(cos + i), s = NAME(load)(sin + i);
    NAME(store)(head + i, first * c - second * s);
    NAME(store)(head + half + i, second * c + first * s);
  }
  for (; i < half; i++) {
    const float first = head[i], second = head[half + i];
    head[i] = first * cos[i] - second * sin[i];
    head[half + i] = second * cos[i] + first * sin[i];
  }
}

/* ---- one run ---- */

INLINE int NAME(share)(const Decoder* decoder, int n) {
  const int size = n / (decoder->n_threads * 2) / 8 * 8;
  return size < 8 ? 8 : size;
}

/* What is multiplied next, of one token */
typedef void NAME(Make)(Decoder* decoder, const Layer* layer, int token, float* to);

/* Compute a product with what `make` makes of `n_tokens` from `first` on, [n_tokens, product->n] */
static void NAME(multiply)(Run* run, const Layer* layer, const Product* product, NAME(Make) * make, int first,
                           int n_tokens, float* out, int adds) {
  Decoder* decoder = run->decoder;
  float* own = decoder->own[run->thread];
  CHUNK *shared = decoder->chunks, *alone = decoder->own_chunks[run->thread];
  const int is_many = n_tokens > GROUP, stride = NAME(n_chunks)(product);
  const int size = is_many ? LANES : NAME(share)(decoder, product->n);
  /* Several tokens are quantized by all threads, one by each for itself: after it took an item, which keeps what it is
     made of from being overwritten. */
  int is_made = n_tokens > 1;
  if (is_many) {
    /* those that lie side by side by one thread: cores do not take lines of memory from each other */
    next_phase(run, (n_tokens + N_TOGETHER - 1) / N_TOGETHER);
    for (int item; (item = take(run)) >= 0;)
      for (int token = item * N_TOGETHER; token < (item + 1) * N_TOGETHER && token < n_tokens; token++) {
        make(decoder, layer, first + token, own);
        NAME(quantize_token)(own, product, NAME(token)(product, shared, token));
      }
  } else if (is_made) {
    next_phase(run, n_tokens);
    for (int token; (token = take(run)) >= 0;) {
      make(decoder, layer, first + token, own);
      NAME(quantize)(own, product, shared + (int64_t)token * stride);
    }
  }
  next_phase(run, n_tokens ? (product->n + size - 1) / size : 0);
  for (int item; (item = take(run)) >= 0;) {
    if (!is_made) {
      make(decoder, layer, first, own);
      NAME(quantize)(own, product, alone);
      is_made = 1;
    }
    const int from = item * size, to = from + size < product->n ? from + size : product->n;
    if (is_many) {
      NAME(rows_of_many)(product, from, shared, n_tokens, out, adds, own);
    } else {
      NAME(rows)(product, from, to, n_tokens > 1 ? shared : alone, stride, n_tokens, out, product->n, adds);
    }
  }
}

static void NAME(make_attention)(Decoder* decoder, const Layer* layer, int token, float* to) {
  const Model* model = &decoder->model;
  NAME(norm)(decoder->x + (int64_t)token * model->hidden, layer->norm, model->hidden, model->epsilon, to);
}
static void NAME(make_feed)(Decoder* decoder, const Layer* layer, int token, float* to) {
  const Model* model = &decoder->model;
  NAME(norm)(decoder->x + (int64_t)token * model->hidden, layer->post_norm, model->hidden, model->epsilon, to);
}
static void NAME(make_out)(Decoder* decoder, const Layer* layer, int token, float* to) {
  (void)layer;
  const int n = decoder->model.n_heads * decoder->model.head_dim;
  memcpy(to, decoder->mixed + (int64_t)token * n, sizeof(float) * (size_t)n);
}
static void NAME(make_down)(Decoder* decoder, const Layer* layer, int token, float* to) {
  (void)layer;
  const int n = decoder->model.intermediate;
  const float* gated = decoder->gated + (int64_t)token * 2 * n;
  NAME(gate)(gated, gated + n, n, to);
}
static void NAME(make_scores)(Decoder* decoder, const Layer* layer, int token, float* to) {
  (void)layer;
  const Model* model = &decoder->model;
  NAME(norm)(decoder->x + (int64_t)token * model->hidden, model->final_norm, model->hidden, model->epsilon, to);
}

/* Turn and scale the queries of a token in place, and put its key, turned, and its value into the cache */
static void NAME(place)(Decoder* decoder, int number, int token) {
  const Model* model = &decoder->model;
  const int dim = model->head_dim, n_all = model->n_heads + 2 * model->n_kv_heads, position = decoder->n_past + token;
  const float *cos = model->cos + (int64_t)position * model->half_rotary,
              *sin = model->sin + (int64_t)position * model->half_rotary;
  float* row = decoder->qkv + (int64_t)token * n_all * dim;
  for (int head = 0; head < model->n_heads + model->n_kv_heads; head++)
    NAME(turn)(row + head * dim, cos, sin, model->half_rotary);
  for (int i = 0; i < model->n_heads * dim; i += LANES) NAME(store)(row + i, NAME(load)(row + i) * model->scale);
  for (int head = 0; head < model->n_kv_heads; head++) {
    const int64_t at = (head * decoder->capacity + position) * dim;
    const float *key = row + (model->n_heads + head) * dim, *value = key + model->n_kv_heads * dim;
    for (int d = 0; d < dim; d += LANES) {
      NAME(narrow)(NAME(load)(key + d), decoder->keys[number] + at + d);
      NAME(narrow)(NAME(load)(value + d), decoder->values[number] + at + d);
    }
  }
}

/* The queries of `n_tokens` tokens that read head `kv`, for the block that begins at `start`; returns how many */
static int NAME(queries)(Decoder* decoder, int kv, int first, int n_tokens, int start, const float** queries,
                         int* limits) {
  const Model* model = &decoder->model;
  const int each = model->n_heads / model->n_kv_heads, n_all = model->n_heads + 2 * model->n_kv_heads;
  int n = 0;
  for (int token = first; token < first + n_tokens; token++) {
    const int limit = decoder->n_past + token + 1 - start;
    for (int head = kv * each; head < (kv + 1) * each; head++, n++) {
      queries[n] = decoder->qkv + ((int64_t)token * n_all + head) * model->head_dim;
      limits[n] = limit < 0 ? 0 : limit > BLOCK ? BLOCK : limit;
    }
  }
  return n;
}

/* Divide what was summed up by the sum of exponentials, into the place of head `head` of `token` */
static void NAME(finish)(Decoder* decoder, const float* partial, int token, int head) {
  const Model* model = &decoder->model;
  float* to = decoder->mixed + ((int64_t)token * model->n_heads + head) * model->head_dim;
  const float factor = 1.0f / partial[1];
  for (int d = 0; d < model->head_dim; d += LANES) NAME(store)(to + d, NAME(load)(partial + 2 + d) * factor);
}

/* Few tokens: heads and blocks are shared out, and what the blocks gave is merged when all are done */
static void NAME(attend_split)(Run* run, int number, int first, int n_tokens) {
  Decoder* decoder = run->decoder;
  const Model* model = &decoder->model;
  const int each = model->n_heads / model->n_kv_heads, n_blocks = (run->n_past + first + n_tokens + BLOCK - 1) / BLOCK;
  const int size = model->head_dim + 2, n_rows = n_tokens * each;
  next_phase(run, n_rows ? model->n_kv_heads * n_blocks : 0);
  for (int item; (item = take(run)) >= 0;) {
    const int kv = item % model->n_kv_heads, block = item / model->n_kv_heads;
    const float* queries[MAX_QUERIES];
    int limits[MAX_QUERIES];
    NAME(queries)(decoder, kv, first, n_tokens, block * BLOCK, queries, limits);
    const int64_t at = (kv * decoder->capacity + (int64_t)block * BLOCK) * model->head_dim;
    NAME(attend)(queries, limits, n_rows, decoder->keys[number] + at, decoder->values[number] + at, model->head_dim,
                 decoder->own[run->thread],
                 decoder->partial + ((int64_t)block * model->n_kv_heads + kv) * n_rows * size);
  }
  next_phase(run, model->n_kv_heads * n_rows);
  for (int item; (item = take(run)) >= 0;) {
    const int kv = item / n_rows, row = item % n_rows, token = first + row / each;
    float* into = decoder->partial + ((int64_t)kv * n_rows + row) * size;
    for (int block = 1; block * BLOCK <= run->n_past + token; block++)
      NAME(merge)(into, decoder->partial + (((int64_t)block * model->n_kv_heads + kv) * n_rows + row) * size,
                  model->head_dim);
    NAME(finish)(decoder, into, token, kv * each + row % each);
  }
}

/* Many tokens: heads and groups of tokens are shared out. A lane is a token: queries, scores and what is mixed lie as
   [.., LANES], so that keys and values are each loaded for all of them, and nothing is summed across lanes.

   What is multiplied are terms: floats, or numbers of fewer bits of which the processor multiplies and sums TERMS with
   one instruction. Those of a lane that are summed at once lie side by side. */
#ifndef TERMS
#define TERMS 1
typedef float NAME(Term);
INLINE void NAME(put_terms)(FLOATS x, float* to) { NAME(store)(to, x); }
INLINE void NAME(put_beside)(const FLOATS* x, float* to) { NAME(store)(to, x[0]); }
INLINE FLOATS NAME(add_terms)(FLOATS sum, const float* lanes, const float* one) {
  return NAME(fma)(NAME(load)(lanes), NAME(all)(*one), sum);
}
#endif
#define TERM NAME(Term)

typedef struct {
  TERM* queries;   /* [heads, head_dim / TERMS, LANES, TERMS] */
  float* scores;   /* [SPAN, LANES] of one head */
  TERM* weights;   /* [SPAN / TERMS, LANES, TERMS] of one head, where its scores lie */
  float* mixed;    /* [heads, head_dim, LANES] */
  TERM* keys;      /* [SPAN, head_dim] */
  TERM* values;    /* [SPAN / TERMS, head_dim, TERMS] */
  float* greatest; /* [heads, LANES] */
  float* total;    /* [heads, LANES] */
} NAME(Lanes);

#define NONE -1e30f /* the score of what is not attended to */

/* Scores of one head with positions 0 to n - 1 (a multiple of N_TOGETHER) of a span, from `limits` on none */
INLINE void NAME(compare_lanes)(const TERM* queries, const TERM* keys, int n, int start, INTS limits, int head_dim,
                                float* scores) {
#define BEGIN(i) FLOATS sum##i = {0};
#define ADD(i) sum##i = NAME(add_terms)(sum##i, query, key + i * head_dim);
#define PUT(i)                                                                                             \
  {                                                                                                        \
    const INTS is = NAME(all_int)(start + at + i) < limits;                                                \
    NAME(store)(scores + (at + i) * LANES, (FLOATS)((is & (INTS)sum##i) | (~is & (INTS)NAME(all)(NONE)))); \
  }
  for (int at = 0; at < n; at += N_TOGETHER) {
    TOGETHER(BEGIN)
    for (int d = 0; d < head_dim; d += TERMS) {
      const TERM *key = keys + at * head_dim + d, *query = queries + d * LANES;
      TOGETHER(ADD)
    }
    TOGETHER(PUT)
  }
#undef BEGIN
#undef ADD
#undef PUT
}

/* Turn scores into exponentials, and what was mixed and summed up before to the same greatest score */
INLINE void NAME(weigh_lanes)(const float* scores, int n, TERM* weights, float* greatest, float* total, float* mixed,
                              int head_dim) {
  const FLOATS before = NAME(load)(greatest);
  FLOATS most = before, others = before; /* two, not to wait for each comparison */
  for (int at = 0; at < n; at += 2) {
    most = NAME(greater)(NAME(load)(scores + at * LANES), most);
    others = NAME(greater)(NAME(load)(scores + (at + 1) * LANES), others);
  }
  most = NAME(greater)(most, others);
  const FLOATS factor = NAME(exp)(before - most);
  FLOATS sum = NAME(load)(total) * factor;
  for (int at = 0; at < n; at += TERMS) {
    FLOATS powers[TERMS];
    for (int i = 0; i < TERMS; i++) {
      powers[i] = NAME(exp)(NAME(load)(scores + (at + i) * LANES) - most);
      sum += powers[i];
    }
    NAME(put_beside)(powers, weights + at * LANES);
  }
  for (int d = 0; d < head_dim; d++) NAME(store)(mixed + d * LANES, NAME(load)(mixed + d * LANES) * factor);
  NAME(store)(greatest, most);
  NAME(store)(total, sum);
}

INLINE void NAME(mix_lanes)(const TERM* weights, const TERM* values, int n, int head_dim, float* mixed) {
#define BEGIN(i) FLOATS sum##i = NAME(load)(mixed + (d + i) * LANES);
#define ADD(i) sum##i = NAME(add_terms)(sum##i, weight, value + i * TERMS);
#define PUT(i) NAME(store)(mixed + (d + i) * LANES, sum##i);
  for (int d = 0; d < head_dim; d += N_TOGETHER) {
    TOGETHER(BEGIN)
    for (int at = 0; at < n; at += TERMS) {
      const TERM *weight = weights + at * LANES, *value = values + at * head_dim + d * TERMS;
      TOGETHER(ADD)
    }
    TOGETHER(PUT)
  }
#undef BEGIN
#undef ADD
#undef PUT
}

/* `n` keys and values of a span as terms, and 0 up to n_whole */
INLINE void NAME(read_span)(const uint16_t* keys, const uint16_t* values, int n, int n_whole, int head_dim,
                            NAME(Lanes) room) {
  for (int i = 0; i < n * head_dim; i += LANES) NAME(put_terms)(NAME(widen)(keys + i), room.keys + i);
  memset(room.keys + n * head_dim, 0, sizeof(TERM) * (size_t)((n_whole - n) * head_dim));
  for (int at = 0; at < n_whole; at += TERMS) {
    for (int d = 0; d < head_dim; d += LANES) {
      FLOATS x[TERMS] = {{0}};
      for (int i = 0; i < TERMS && at + i < n; i++) x[i] = NAME(widen)(values + (at + i) * head_dim + d);
      NAME(put_beside)(x, room.values + at * head_dim + d * TERMS);
    }
  }
}

/* One head of keys with a group of LANES tokens or fewer, from `first` on */
APART void NAME(attend_lanes)(Decoder* decoder, int number, int kv, int first, int n_tokens, NAME(Lanes) room) {
  const Model* model = &decoder->model;
  const int dim = model->head_dim, each = model->n_heads / model->n_kv_heads,
            wide = (model->n_heads + 2 * model->n_kv_heads) * dim;
  INTS limits;
  for (int lane = 0; lane < LANES; lane++)
    limits[lane] = decoder->n_past + first + (lane < n_tokens ? lane : n_tokens - 1) + 1;
  const int longest = limits[LANES - 1];
  for (int head = 0; head < each; head++) {
    for (int lane = 0; lane < LANES; lane++) {
      const int token = first + (lane < n_tokens ? lane : n_tokens - 1);
      const float* query = decoder->qkv + (int64_t)token * wide + (kv * each + head) * dim;
      TERM *row = room.keys, *to = room.queries + head * dim * LANES + lane * TERMS;
      for (int d = 0; d < dim; d += LANES) NAME(put_terms)(NAME(load)(query + d), row + d);
      for (int d = 0; d < dim; d += TERMS) memcpy(to + d * LANES, row + d, sizeof(TERM) * TERMS);
    }
    NAME(store)(room.greatest + head * LANES, NAME(all)(-1e30f));
  }
  memset(room.total, 0, sizeof(float) * (size_t)(each * LANES));
  memset(room.mixed, 0, sizeof(float) * (size_t)(each * dim * LANES));
  for (int start = 0; start < longest; start += SPAN) {
    const int n = longest - start < SPAN ? longest - start : SPAN,
              n_whole = (n + N_TOGETHER - 1) / N_TOGETHER * N_TOGETHER;
    const int64_t at = (kv * decoder->capacity + start) * dim;
    NAME(read_span)(decoder->keys[number] + at, decoder->values[number] + at, n, n_whole, dim, room);
    for (int head = 0; head < each; head++) {
      float *mixed = room.mixed + head * dim * LANES, *greatest = room.greatest + head * LANES;
      NAME(compare_lanes)(room.queries + head * dim * LANES, room.keys, n_whole, start, limits, dim, room.scores);
      NAME(weigh_lanes)(room.scores, n_whole, room.weights, greatest, room.total + head * LANES, mixed, dim);
      NAME(mix_lanes)(room.weights, room.values, n_whole, dim, mixed);
    }
  }
  for (int head = 0; head < each; head++) {
    float* mixed = room.mixed + head * dim * LANES;
    const FLOATS total = NAME(load)(room.total + head * LANES);
    for (int d = 0; d < dim; d++) NAME(store)(mixed + d * LANES, NAME(load)(mixed + d * LANES) / total);
    for (int lane = 0; lane < n_tokens; lane++) {
      float* to = decoder->mixed + ((int64_t)(first + lane) * model->n_heads + kv * each + head) * dim;
      for (int d = 0; d < dim; d++) to[d] = mixed[d * LANES + lane];
    }
  }
}

static void NAME(attend_many)(Run* run, int number, int first, int n_tokens) {
  Decoder* decoder = run->decoder;
  const Model* model = &decoder->model;
  const int64_t heads = model->n_heads / model->n_kv_heads, dim = model->head_dim;
  const int n_groups = (n_tokens + LANES - 1) / LANES;
  NAME(Lanes) room = {.scores = decoder->own[run->thread]};
  room.weights = (TERM*)room.scores;
  room.mixed = room.scores + SPAN * LANES;
  room.greatest = room.mixed + heads * dim * LANES;
  room.total = room.greatest + heads * LANES;
  room.queries = (TERM*)(room.total + heads * LANES);
  room.keys = room.queries + heads * dim * LANES;
  room.values = room.keys + SPAN * dim;
  next_phase(run, model->n_kv_heads * n_groups);
  for (int item; (item = take(run)) >= 0;) {
    /* the last tokens, which read most, first */
    const int kv = item % model->n_kv_heads, at = (n_groups - 1 - item / model->n_kv_heads) * LANES;
    const int n = n_tokens - at < LANES ? n_tokens - at : LANES;
    NAME(attend_lanes)(decoder, number, kv, first + at, n, room);
  }
}

/* All phases of a run, in which the threads meet again and again */
static void NAME(forward)(Run* run) {
  Decoder* decoder = run->decoder;
  const Model* model = &decoder->model;
  for (int number = 0; number < run->n_layers; number++) {
    const Layer* layer = decoder->layers + number;
    NAME(multiply)(run, layer, &layer->qkv, NAME(make_attention), 0, run->n_tokens, decoder->qkv, 0);
    next_phase(run, run->n_tokens);
    for (int token; (token = take(run)) >= 0;) NAME(place)(decoder, number, token);
    /* of the last layer, only keys and values are needed of tokens without scores */
    const int64_t first = number < model->n_layers - 1 ? 0 : run->n_tokens - run->n_scored;
    const int n = run->n_tokens - (int)first;
    float *x = decoder->x + first * model->hidden, *gated = decoder->gated + first * 2 * model->intermediate;
    (n > GROUP ? NAME(attend_many) : NAME(attend_split))(run, number, (int)first, n);
    NAME(multiply)(run, layer, &layer->out, NAME(make_out), (int)first, n, x, 1);
    NAME(multiply)(run, layer, &layer->gate_up, NAME(make_feed), (int)first, n, gated, 0);
    NAME(multiply)(run, layer, &layer->down, NAME(make_down), (int)first, n, x, 1);
  }
  if (run->logits)
    NAME(multiply)(run, NULL, &model->head, NAME(make_scores), run->n_tokens - run->n_scored, run->n_scored,
                   run->logits, 0);
}

#undef NONE
#undef TERM
#undef TERMS
#undef FLOATS
#undef INTS
#undef FOUR
#undef CHUNK
#undef CHUNK_BYTES
#undef INLINE
#undef NAME
#undef LANES
#undef ZERO_8
#undef N_TOGETHER
#undef TOGETHER
