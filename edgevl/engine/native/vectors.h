/* Vectors of LANES floats or integers, made of PIECES as wide as the processor's registers: of wider ones GCC makes
   code that goes through memory. Included once for each instruction set, with NAME() to tell them apart. Pieces have
   GCC's and Clang's operators. */

#define WIDTH (LANES / PIECES)
typedef float NAME(FloatPiece) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(IntPiece) __attribute__((vector_size(4 * WIDTH)));
typedef NAME(FloatPiece) NAME(FloatPlace) __attribute__((aligned(4), may_alias));
typedef NAME(IntPiece) NAME(IntPlace) __attribute__((aligned(4), may_alias));
typedef float NAME(Four) __attribute__((vector_size(16)));
#define PIECE NAME(FloatPiece)
#if PIECES == 1
#define EACH(what) what(a, 0)
typedef struct {
  NAME(FloatPiece) a;
} NAME(Floats);
typedef struct {
  NAME(IntPiece) a;
} NAME(Ints);
#elif PIECES == 2
#define EACH(what) what(a, 0) what(b, 1)
typedef struct {
  NAME(FloatPiece) a, b;
} NAME(Floats);
typedef struct {
  NAME(IntPiece) a, b;
} NAME(Ints);
#else
#define EACH(what) what(a, 0) what(b, 1) what(c, 2) what(d, 3)
typedef struct {
  NAME(FloatPiece) a, b, c, d;
} NAME(Floats);
typedef struct {
  NAME(IntPiece) a, b, c, d;
} NAME(Ints);
#endif
#define FLOATS NAME(Floats)
#define INTS NAME(Ints)
#define FOUR NAME(Four)

SHORT PIECE NAME(load_piece)(const float* from) { return *(const NAME(FloatPlace)*)from; }
SHORT void NAME(store_piece)(float* to, PIECE x) { *(NAME(FloatPlace)*)to = x; }

#define DO(p, i) x.p = NAME(load_piece)(from + i * WIDTH);
SHORT FLOATS NAME(load)(const float* from) {
  FLOATS x;
  EACH(DO)
  return x;
}
#undef DO
#define DO(p, i) NAME(store_piece)(to + i * WIDTH, x.p);
SHORT void NAME(store)(float* to, FLOATS x){EACH(DO)}
#undef DO
#define DO(p, i) x.p = *(const NAME(IntPlace)*)(from + i * WIDTH);
SHORT INTS NAME(load_ints)(const int32_t* from) {
  INTS x;
  EACH(DO)
  return x;
}
#undef DO
#define DO(p, i) *(NAME(IntPlace)*)(to + i * WIDTH) = x.p;
SHORT void NAME(store_ints)(int32_t* to, INTS x){EACH(DO)}
#undef DO

SHORT PIECE NAME(all_piece)(float x) {
  return x - (PIECE){0};
}
#define DO(p, i) to.p = x - (NAME(FloatPiece)){0};
SHORT FLOATS NAME(all)(float x) {
  FLOATS to;
  EACH(DO)
  return to;
}
#undef DO
#define DO(p, i) to.p = x - (NAME(IntPiece)){0};
SHORT INTS NAME(all_int)(int32_t x) {
  INTS to;
  EACH(DO)
  return to;
}
#undef DO

#define DO(p, i) x.p += y.p;
SHORT FLOATS NAME(add)(FLOATS x, FLOATS y) { EACH(DO) return x; }
SHORT INTS NAME(add_ints)(INTS x, INTS y) { EACH(DO) return x; }
#undef DO
#define DO(p, i) x.p -= y.p;
SHORT FLOATS NAME(less)(FLOATS x, FLOATS y) { EACH(DO) return x; }
#undef DO
#define DO(p, i) x.p *= y.p;
SHORT FLOATS NAME(times)(FLOATS x, FLOATS y) { EACH(DO) return x; }
#undef DO
#define DO(p, i) x.p *= factor;
SHORT FLOATS NAME(scaled)(FLOATS x, float factor) { EACH(DO) return x; }
#undef DO
/* sum + x * y, rounded once */
#define DO(p, i) sum.p += x.p * y.p;
SHORT FLOATS NAME(add_times)(FLOATS sum, FLOATS x, FLOATS y) { EACH(DO) return sum; }
#undef DO
#define DO(p, i) sum.p += x.p * factor;
SHORT FLOATS NAME(add_scaled)(FLOATS sum, FLOATS x, float factor) { EACH(DO) return sum; }
#undef DO
#define DO(p, i) to.p = __builtin_convertvector(x.p, NAME(FloatPiece));
SHORT FLOATS NAME(to_floats)(INTS x) {
  FLOATS to;
  EACH(DO)
  return to;
}
#undef DO
#define DO(p, i) to.p = __builtin_convertvector(x.p, NAME(IntPiece));
SHORT INTS NAME(to_ints)(FLOATS x) {
  INTS to;
  EACH(DO)
  return to;
}
#undef DO
/* x where `a` is less than `b`, otherwise y */
#define DO(p, i) to.p = (NAME(FloatPiece))(((a.p < b.p) & (NAME(IntPiece))x.p) | (~(a.p < b.p) & (NAME(IntPiece))y.p));
SHORT FLOATS NAME(where_less)(INTS a, INTS b, FLOATS x, FLOATS y) {
  FLOATS to;
  EACH(DO)
  return to;
}
#undef DO
