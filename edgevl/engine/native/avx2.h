/* The primitives of kernels.h in 256 bits: for AVX2, and with a dot product of bytes (AVX-VNNI) where ZERO_8 is not 0.
   Included once for each, with NAME() to tell them apart. */

typedef struct {
  __m256i a, b;
} NAME(Bytes);
typedef struct {
  int is_whole;
  __m256i a, b, scales;
} NAME(Part);
SHORT __m256i NAME(first)(int n) { /* all bits of the first `n` lanes */
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SHORT NAME(Part) NAME(part)(int n_bytes, int n_scales) {
  return (NAME(Part)){n_bytes == CHUNK_BYTES, NAME(first)(n_bytes / 4), NAME(first)(n_bytes / 4 - 8),
                      NAME(first)(n_scales)};
}
SHORT NAME(Bytes) NAME(load_bytes)(const int8_t* from) {
  return (NAME(Bytes)){_mm256_loadu_si256((const __m256i*)from), _mm256_loadu_si256((const __m256i*)(from + 32))};
}
SHORT NAME(Bytes) NAME(repeat)(const int8_t* from) {
  int32_t four;
  memcpy(&four, from, 4);
  return (NAME(Bytes)){_mm256_set1_epi32(four), _mm256_set1_epi32(four)};
}
SHORT NAME(Bytes) NAME(load_part)(const uint8_t* from, NAME(Part) part) {
  if (part.is_whole) return NAME(load_bytes)((const int8_t*)from);
  return (NAME(Bytes)){_mm256_maskload_epi32((const int*)from, part.a),
                       _mm256_maskload_epi32((const int*)(from + 32), part.b)};
}
typedef struct {
  __m256i a, b;
} NAME(Places);
SHORT NAME(Places) NAME(places)(int lanes) {
  const __m128i shift = _mm_cvtsi32_si128(__builtin_ctz((unsigned)lanes));
  return (NAME(Places)){_mm256_srl_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), shift),
                        _mm256_srl_epi32(_mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15), shift)};
}
SHORT NAME(Floats) NAME(spread)(const float* scales, NAME(Part) part, NAME(Places) places) {
  const __m256 all = _mm256_maskload_ps(scales, part.scales); /* eight at most, because two lanes or more share one */
  return (NAME(Floats)){_mm256_permutevar8x32_ps(all, places.a), _mm256_permutevar8x32_ps(all, places.b)};
}
SHORT NAME(Bytes) NAME(low)(NAME(Bytes) x) {
  const __m256i low = _mm256_set1_epi8(15);
  return (NAME(Bytes)){_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low)};
}
SHORT NAME(Bytes) NAME(high)(NAME(Bytes) x) {
  return NAME(low)((NAME(Bytes)){_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)});
}
#if ZERO_8
SHORT NAME(IntPiece) NAME(dot_piece)(NAME(IntPiece) sum, __m256i weights, __m256i values) {
  return (NAME(IntPiece))_mm256_dpbusd_avx_epi32((__m256i)sum, weights, values);
}
#define DOT_8_PIECE NAME(dot_piece)
#else
SHORT NAME(IntPiece) NAME(dot_piece)(NAME(IntPiece) sum, __m256i weights, __m256i values) {
  return sum + (NAME(IntPiece))_mm256_madd_epi16(_mm256_maddubs_epi16(weights, values), _mm256_set1_epi16(1));
}
SHORT NAME(IntPiece) NAME(dot_8_piece)(NAME(IntPiece) sum, __m256i weights, __m256i values) {
  const __m256i is = _mm256_xor_si256(weights, _mm256_set1_epi8((char)0x80)); /* its signs go to the values */
  return NAME(dot_piece)(sum, _mm256_abs_epi8(is), _mm256_sign_epi8(values, is));
}
#define DOT_8_PIECE NAME(dot_8_piece)
#endif
SHORT NAME(Ints) NAME(dot)(NAME(Ints) sum, NAME(Bytes) weights, NAME(Bytes) values) {
  return (NAME(Ints)){NAME(dot_piece)(sum.a, weights.a, values.a), NAME(dot_piece)(sum.b, weights.b, values.b)};
}
SHORT NAME(Ints) NAME(dot_8)(NAME(Ints) sum, NAME(Bytes) weights, NAME(Bytes) values) {
  return (NAME(Ints)){DOT_8_PIECE(sum.a, weights.a, values.a), DOT_8_PIECE(sum.b, weights.b, values.b)};
}
#undef DOT_8_PIECE
SHORT NAME(FloatPiece) NAME(greater_piece)(NAME(FloatPiece) x, NAME(FloatPiece) y) { return _mm256_max_ps(x, y); }
SHORT NAME(Four) NAME(quarter)(NAME(Floats) x) {
  const __m256 half = x.a + x.b;
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
SHORT void NAME(put_bytes)(NAME(Ints) x, int8_t* to) {
  /* packing goes within halves: pairs of fours are put in their order first */
  const __m256i all = _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)x.a, (__m256i)x.b), 0xd8);
  _mm_storeu_si128((__m128i*)to, _mm_packs_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}
SHORT NAME(Floats) NAME(widen)(const uint16_t* from) {
  return (NAME(Floats)){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from)),
                        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + 8)))};
}
SHORT void NAME(narrow_piece)(__m256 x, uint16_t* to) {
  const __m256 most = _mm256_set1_ps(MOST_HALF), least = _mm256_set1_ps(-MOST_HALF);
  const __m256 within = _mm256_min_ps(most, _mm256_max_ps(least, x));
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph(within, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
SHORT void NAME(narrow)(NAME(Floats) x, uint16_t* to) {
  NAME(narrow_piece)(x.a, to);
  NAME(narrow_piece)(x.b, to + 8);
}
