/* The bridge from an MPI program to ipmpi: see ipmpi_steer.h.
 *
 * It loads Python when the program attaches, and gives it the address of a table. Python, in ipmpi/native/embedded.py,
 * fills the table with its functions. All that is decided is decided there.
 */
#define _GNU_SOURCE
#include "ipmpi_steer.h"

#include <dlfcn.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#if defined(__has_include)
#if __has_include(<ISO_Fortran_binding.h>)
#include <ISO_Fortran_binding.h>
#endif
#endif

/* Names of folders are no macros. */
#undef linux
#undef unix
#undef i386
#define WORDS(...) #__VA_ARGS__
#define TEXT(...) WORDS(__VA_ARGS__)

#ifdef IPMPI_LIBPYTHON
#define DEFAULT_LIBPYTHON TEXT(IPMPI_LIBPYTHON)
#else
#define DEFAULT_LIBPYTHON ""
#endif
#ifdef IPMPI_PYTHON
#define DEFAULT_PYTHON TEXT(IPMPI_PYTHON)
#else
#define DEFAULT_PYTHON ""
#endif

#if defined(MPI_ABI_VERSION) && !defined(OPEN_MPI) && !defined(MPICH_VERSION)
#define ABI "mpiabi"
#elif defined(OPEN_MPI)
#define ABI "openmpi"
#else
#define ABI "mpich"
#endif

/* What both sides of the bridge know; Python has the same list in `Table`. */
static struct {
    uint64_t size;
    int64_t comm;
    const char *abi;     /* which of the kinds of MPI that mpi4py knows */
    const char *library; /* what MPI_Get_library_version says */
    char *reason;        /* why something was refused, for the sentence */
    uint64_t reason_size;
    int (*load)(void);
    int (*attach)(void);
    int (*array)(const char *, void *, int, const int64_t *, const int64_t *, const char *);
    int (*global)(const char *, const int64_t *, const int64_t *, const int64_t *);
    int (*number)(const char *, void *, const char *);
    int (*forget)(const char *);
    int (*tick)(int64_t);
    int (*detach)(void);
    /* Words that this rank shares with its node agent; see docs/decisions/0030. */
    volatile int64_t *at_step;
    const volatile int64_t *sent;
    const volatile int64_t *received;
    const volatile int64_t *due;
    volatile int64_t *label;
    int64_t ticks;
} table;

/* By this variable Python tells why it could not. */
#define WHY "IPMPI_NO_PYTHON"

enum { NEVER, FAILED, ATTACHED, DETACHED };
static int state = NEVER;
static pthread_t owner;
static char reason[1024];

/* --- entering Python ------------------------------------------------------------------------------------------- */

/* What a program has set for its own arithmetic and pipes does not hold for Python, and the other way round: NumPy
 * computes with infinities where a program may trap them, and writes to sockets whose other end may be gone. */
struct outside {
    fenv_t arithmetic;
    struct sigaction pipe;
};

static void enter(struct outside *kept)
{
    struct sigaction ignored;
    memset(&ignored, 0, sizeof ignored);
    ignored.sa_handler = SIG_IGN;
    feholdexcept(&kept->arithmetic);
    sigaction(SIGPIPE, &ignored, &kept->pipe);
    fflush(stdout);
}

static void leave(const struct outside *kept)
{
    fflush(stdout);
    sigaction(SIGPIPE, &kept->pipe, NULL);
    fesetenv(&kept->arithmetic);
}

static int refused(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(reason, sizeof reason, format, values);
    va_end(values);
    return -1;
}

static int complain(void)
{
    static char said[sizeof reason];
    if (strcmp(said, reason)) fprintf(stderr, "ipmpi: %s; the program goes on\n", reason);
    memcpy(said, reason, sizeof said); /* once is enough for what is wrong in each step */
    return -1;
}

static const char *setting(const char *variable, const char *otherwise)
{
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

/* Find a function of a library; whether it is there. */
static int find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found); /* C has no conversion from an object to a function */
    return found != NULL;
}

/* Start an interpreter that finds its packages as the command `python` does. */
static int start_interpreter(void *library, const char *python)
{
    void *(*create)(void);
    void (*discard)(void *);
    int (*set)(void *, const char *, const char *), (*start)(void *);
    void (*set_program_name)(const wchar_t *), (*initialize)(int);
    wchar_t *(*decode)(const char *, size_t *);

    if (find(library, "PyInitConfig_Create", &create)) { /* Python 3.14 and newer */
        void *config = create();
        int bad = !find(library, "PyInitConfig_Free", &discard) || !find(library, "PyInitConfig_SetStr", &set) ||
                  !find(library, "Py_InitializeFromInitConfig", &start) || !config ||
                  (*python && set(config, "executable", python)) || start(config);
        return bad ? refused("Python could not be started as %s", python) : (discard(config), 0);
    }
    if (!find(library, "Py_InitializeEx", &initialize)) return refused("Python has no function Py_InitializeEx");
    if (*python && find(library, "Py_DecodeLocale", &decode) &&
        find(library, "Py_SetProgramName", &set_program_name))
        set_program_name(decode(python, NULL)); /* Python keeps it */
    initialize(0);
    return 0;
}

/* Import our side, which fills the table. A Python that cannot do that may be able to do very little. */
static int import_our_side(void *library)
{
    static const char *form =
        "try:\n"
        "    from ipmpi.native.embedded import begin as _ipmpi\n"
        "    _ipmpi(%llu)\n"
        "    del _ipmpi\n"
        "except Exception as _ipmpi:\n"
        "    __import__('posix').putenv(b'" WHY "', f'{type(_ipmpi).__name__}: {_ipmpi}'.encode()[:500])\n";
    int (*run)(const char *), result;
    const char *why;
    char code[512];
    if (!find(library, "PyRun_SimpleString", &run)) return refused("Python has no function PyRun_SimpleString");
    snprintf(code, sizeof code, form, (unsigned long long)(uintptr_t)&table);
    if (run(code) == 0 && table.load) return 0;
    why = setting(WHY, "see above");
    result = refused("Python cannot load ipmpi (%s)%s", why,
                     strncmp(why, "ModuleNotFound", 14) ? "" : ". Install it there, or set IPMPI_PYTHON to an "
                     "interpreter that has it, and IPMPI_LIBPYTHON to its library, as `ipmpi-steer-config --python "
                     "--libpython` prints them");
    unsetenv(WHY);
    return result;
}

/* Load Python, with the thread that calls as its main thread. */
static int load_python(void)
{
    const char *path = setting("IPMPI_LIBPYTHON", DEFAULT_LIBPYTHON);
    void *library = dlopen(NULL, RTLD_NOW | RTLD_GLOBAL);
    int (*is_running)(void), (*take)(void), held, result;
    void (*give_back)(int);
    void *(*let_go)(void);

    if (!find(library, "Py_IsInitialized", &is_running)) {
        if (!*path)
            return refused("no Python was named when this program was compiled. Set IPMPI_PYTHON and "
                           "IPMPI_LIBPYTHON to what `ipmpi-steer-config --python --libpython` prints");
        /* Global, as extension modules of many distributions rely on finding Python's symbols. */
        library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        if (!library) return refused("Python cannot be loaded: %s", dlerror());
    }
    if (!find(library, "Py_IsInitialized", &is_running) || !find(library, "PyGILState_Ensure", &take) ||
        !find(library, "PyGILState_Release", &give_back) || !find(library, "PyEval_SaveThread", &let_go))
        return refused("%s is no library of Python", path);
    if (is_running()) {
        held = take();
        result = import_our_side(library);
        give_back(held);
        return result;
    }
    if (start_interpreter(library, setting("IPMPI_PYTHON", DEFAULT_PYTHON))) return -1;
    result = import_our_side(library);
    let_go(); /* from here on, each call takes the lock of the interpreter for itself */
    return result;
}

/* --- attach and detach ----------------------------------------------------------------------------------------- */

/* Whether all ranks have come so far. If not: whether this is the lowest one that has not. */
static int all_did(MPI_Comm comm, int failure, int *is_first)
{
    int rank, first;
    MPI_Comm_rank(comm, &rank);
    rank = failure ? rank : INT32_MAX;
    MPI_Allreduce(&rank, &first, 1, MPI_INT, MPI_MIN, comm);
    *is_first = first == rank;
    return first == INT32_MAX;
}

/* As all_did; the lowest rank that has not come so far says why. */
static int all_did_or_say_why(MPI_Comm comm, int failure)
{
    int is_first, good = all_did(comm, failure, &is_first);
    if (!good && is_first) fprintf(stderr, "ipmpi: this run cannot be steered: %s\n", reason);
    return good;
}

static int at_finalize(MPI_Comm comm, int key, void *value, void *extra)
{
    (void)comm, (void)key, (void)value, (void)extra;
    ipmpi_detach();
    return MPI_SUCCESS;
}

/* MPI_Finalize begins with deleting the attributes of MPI_COMM_SELF. */
static void detach_at_finalize(void)
{
    static int key = MPI_KEYVAL_INVALID;
    if (key != MPI_KEYVAL_INVALID) return;
    MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &key, NULL);
    MPI_Comm_set_attr(MPI_COMM_SELF, key, &state);
}

static int may_attach(MPI_Comm comm)
{
    int yes = 0, level;
    if (state == ATTACHED) return refused("ipmpi_attach was called twice");
    MPI_Initialized(&yes);
    if (!yes) return refused("ipmpi_attach was called before MPI_Init");
    MPI_Finalized(&yes);
    if (yes) return refused("ipmpi_attach was called after MPI_Finalize");
    if (comm == MPI_COMM_NULL) return refused("ipmpi_attach was called with MPI_COMM_NULL");
    MPI_Is_thread_main(&yes);
    if (yes) return 0;
    MPI_Query_thread(&level);
    if (level >= MPI_THREAD_SERIALIZED) all_did(comm, 1, &yes); /* others may have come in their main threads */
    state = FAILED;
    return refused("ipmpi_attach was called in another thread than the one that has called MPI_Init");
}

int ipmpi_attach(MPI_Comm comm)
{
    static char version[MPI_MAX_LIBRARY_VERSION_STRING];
    struct outside kept;
    int length, good;
    if (!strcmp(setting("IPMPI_STEERING", "on"), "off")) {
        state = state == NEVER ? FAILED : state;
        return 0;
    }
    if (may_attach(comm)) return complain();
    MPI_Get_library_version(version, &length);
    table.size = sizeof table;
    table.comm = MPI_Comm_c2f(comm);
    table.abi = ABI;
    table.library = version;
    table.reason = reason;
    table.reason_size = sizeof reason;
    owner = pthread_self();
    enter(&kept);
    /* First what each rank finds out by itself, so that no rank waits in Python for one that has none. */
    good = all_did_or_say_why(comm, (table.load ? 0 : load_python()) || table.load()) &&
           all_did_or_say_why(comm, table.attach());
    leave(&kept);
    state = good ? ATTACHED : FAILED;
    if (good) detach_at_finalize();
    return good ? 0 : -1;
}

int ipmpi_attach_fortran(int comm)
{
    int up = 0;
    MPI_Initialized(&up);
    return ipmpi_attach(up ? MPI_Comm_f2c((MPI_Fint)comm) : MPI_COMM_NULL);
}

int ipmpi_detach(void)
{
    struct outside kept;
    int result;
    if (state != ATTACHED) return 0;
    if (!pthread_equal(owner, pthread_self())) {
        refused("ipmpi_detach was called in another thread than ipmpi_attach");
        return complain();
    }
    state = DETACHED;
    enter(&kept);
    result = table.detach();
    leave(&kept);
    return result;
}

/* --- names ----------------------------------------------------------------------------------------------------- */

/* Whether Python is to be told. Without it nothing is said: the program runs as ever. */
static int is_told(const char *function, int *result)
{
    *result = 0;
    if (state == FAILED || state == DETACHED) return 0;
    *result = -1;
    if (state == NEVER)
        refused("%s was called before ipmpi_attach", function);
    else if (!pthread_equal(owner, pthread_self()))
        refused("%s was called in another thread than ipmpi_attach", function);
    else
        return 1;
    complain();
    return 0;
}

#define TOLD(function, call)                                                                                          \
    do {                                                                                                              \
        struct outside kept;                                                                                          \
        int result;                                                                                                   \
        if (!is_told(function, &result)) return result;                                                               \
        enter(&kept);                                                                                                 \
        result = call;                                                                                                \
        leave(&kept);                                                                                                 \
        return result;                                                                                                \
    } while (0)

int ipmpi_array(const char *name, void *data, int ndim, const int64_t *shape, const int64_t *strides, const char *dtype)
{
    TOLD("ipmpi_array", table.array(name, data, ndim, shape, strides, dtype));
}

int ipmpi_global(const char *name, const int64_t *offset, const int64_t *shape, const int64_t *halo)
{
    TOLD("ipmpi_global", table.global(name, offset, shape, halo));
}

int ipmpi_double(const char *name, double *value)
{
    TOLD("ipmpi_double", table.number(name, value, IPMPI_DOUBLE));
}

int ipmpi_int(const char *name, int *value)
{
    TOLD("ipmpi_int", table.number(name, value, IPMPI_INT));
}

int ipmpi_forget(const char *name)
{
    TOLD("ipmpi_forget", table.forget(name));
}

#ifdef CFI_VERSION
/* The name by which NumPy knows the type of a Fortran array, or NULL. */
static const char *dtype_of(const CFI_cdesc_t *a)
{
    static const struct {
        CFI_type_t type;
        const char *kind;
    } known[] = {
        {CFI_type_double, "f"},         {CFI_type_float, "f"},           {CFI_type_int8_t, "i"},
        {CFI_type_int16_t, "i"},        {CFI_type_int32_t, "i"},         {CFI_type_int64_t, "i"},
        {CFI_type_float_Complex, "c"},  {CFI_type_double_Complex, "c"},
    };
    static char name[8];
    size_t each;
    for (each = 0; each < sizeof known / sizeof *known; each++)
        if (a->type == known[each].type) {
            snprintf(name, sizeof name, "%s%d", known[each].kind, (int)a->elem_len);
            return name;
        }
    return NULL;
}

int ipmpi_array_fortran(const char *name, void *descriptor)
{
    const CFI_cdesc_t *a = descriptor;
    int64_t shape[CFI_MAX_RANK], strides[CFI_MAX_RANK];
    const char *dtype = dtype_of(a);
    int each;
    for (each = 0; each < a->rank; each++) {
        shape[each] = a->dim[each].extent;
        strides[each] = a->dim[each].sm;
    }
    return ipmpi_array(name, a->base_addr, a->rank, shape, strides, dtype);
}
#else
int ipmpi_array_fortran(const char *name, void *descriptor)
{
    (void)name, (void)descriptor;
    refused("this C compiler has no ISO_Fortran_binding.h: compile ipmpi_steer.c with the one that belongs to your "
            "Fortran compiler");
    return complain();
}
#endif

/* --- the tick -------------------------------------------------------------------------------------------------- */

int ipmpi_tick(int64_t step)
{
    if (state == ATTACHED && pthread_equal(owner, pthread_self())) {
        int64_t tick = table.ticks++;
        *table.label = step - tick;
        if (tick < *table.due) {
            *table.at_step = 2 * tick;
            /* The agent writes SENT and then reads STEP; one of the two sees what the other has written. */
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (*table.sent <= *table.received) return 0;
        }
    }
    TOLD("ipmpi_tick", table.tick(step));
}
