/* A libnvidia-ml.so.1 without a GPU behind it, for the tests of the agent.
 *
 * The file named in PITWALL_TEST_NVML_STATE is mapped and holds `struct machine`; a test writes
 * to it from outside to switch faults while the agent runs. Layout and names are mirrored in
 * tests/integration/agent/conftest.py. A number in PITWALL_TEST_NVML_NODE sets the GPUs of one node
 * apart from those of another. WITHOUT_NEW_SYMBOLS builds an old driver. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GPUS 16
#define EVENTS 64
#define LINKS 18

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT = 7, TIMEOUT = 10, UNKNOWN = 999 };

struct gpu {
    uint32_t removed, error, open_error, temperature;
    uint32_t margin, memory_temperature, power_milliwatts, utilization;
    uint32_t remap_pending, remap_failure, recovery_action, links_down;
    uint32_t processes, ecc_off, persistence_off, field_error;
    uint32_t pids[8];
    uint64_t energy_millijoules, ecc_corrected, ecc_uncorrected, calls;
};

struct event {
    uint32_t gpu, type;
    uint64_t data;
};

struct machine {
    uint32_t gpus, init_error, hang, count_error;
    uint32_t events_written, mig, no_gpm, pad[1];
    struct event events[EVENTS];
    struct gpu gpu[GPUS];
};

struct set {
    uint32_t read, watched;
};

/* An instance of a GPU that MIG cuts. */
struct instance {
    uint32_t gpu, number;
};

#define INSTANCES 7

static struct machine *machine;
static struct instance instances[GPUS][INSTANCES];

static struct instance *instance_of(void *handle) {
    struct instance *found = handle;
    if (found < &instances[0][0] || found >= &instances[0][0] + GPUS * INSTANCES)
        return NULL;
    return found;
}

static struct machine *find(void) {
    if (machine != NULL)
        return machine;
    const char *path = getenv("PITWALL_TEST_NVML_STATE");
    int file = path == NULL ? -1 : open(path, O_RDWR);
    if (file < 0)
        return NULL;
    void *memory = mmap(NULL, sizeof(struct machine), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return NULL;
    machine = memory;
    return machine;
}

static void hang_while_told(void) {
    while (*(volatile uint32_t *)&machine->hang)
        usleep(2000);
}

static int enter(struct gpu *gpu) {
    hang_while_told();
    if (gpu < machine->gpu || gpu >= machine->gpu + GPUS)
        return INVALID;
    gpu->calls++;
    return (int)*(volatile uint32_t *)&gpu->error;
}

#define ENTER(handle)                                                                              \
    struct gpu *gpu = (struct gpu *)(handle);                                                      \
    int code = enter(gpu);                                                                         \
    if (code != SUCCESS)                                                                           \
        return code;                                                                               \
    (void)gpu

static int number_of(struct gpu *gpu) { return (int)(gpu - machine->gpu); }

static int number_of_node(void) {
    const char *text = getenv("PITWALL_TEST_NVML_NODE");
    return text == NULL ? 0 : atoi(text);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (find() == NULL)
        return UNKNOWN;
    hang_while_told();
    return (int)machine->init_error;
}
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "580.105.08");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    hang_while_told();
    if (machine->count_error)
        return (int)machine->count_error;
    *count = 0;
    for (uint32_t i = 0; i < machine->gpus; i++)
        *count += !machine->gpu[i].removed;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    hang_while_told();
    for (uint32_t i = 0; i < machine->gpus; i++) {
        if (machine->gpu[i].removed)
            continue;
        if (index-- == 0) {
            *handle = &machine->gpu[i];
            return (int)machine->gpu[i].open_error;
        }
    }
    return INVALID;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    struct instance *instance = instance_of(handle);
    if (instance != NULL) {
        snprintf(text, size, "MIG-%04u-%04u", instance->gpu, instance->number);
        return SUCCESS;
    }
    ENTER(handle);
    snprintf(text, size, "GPU-00000000-0000-0000-%04d-%012d", number_of_node(),
             number_of(gpu));
    return SUCCESS;
}
int nvmlDeviceGetSerial(void *handle, char *text, unsigned size) {
    ENTER(handle);
    snprintf(text, size, "16530%04d%04d", number_of_node(), number_of(gpu));
    return SUCCESS;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    ENTER(handle);
    snprintf(text, size, "NVIDIA H100 80GB HBM3");
    return SUCCESS;
}
int nvmlDeviceGetVbiosVersion(void *handle, char *text, unsigned size) {
    ENTER(handle);
    snprintf(text, size, "96.00.99.00.01");
    return SUCCESS;
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
};
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    ENTER(handle);
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x10u + 0x11u * (unsigned)number_of(gpu);
    snprintf(pci->address, sizeof pci->address, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

#define UNSIGNED_CALL(name, value)                                                                 \
    int name(void *handle, unsigned *answer) {                                                     \
        ENTER(handle);                                                                             \
        *answer = (unsigned)(value);                                                               \
        return SUCCESS;                                                                            \
    }
UNSIGNED_CALL(nvmlDeviceGetModuleId, number_of(gpu) + 1)
UNSIGNED_CALL(nvmlDeviceGetMinorNumber, number_of(gpu))
UNSIGNED_CALL(nvmlDeviceGetPersistenceMode, !gpu->persistence_off)
UNSIGNED_CALL(nvmlDeviceGetPowerUsage, gpu->power_milliwatts)
UNSIGNED_CALL(nvmlDeviceGetEnforcedPowerLimit, 700000)
UNSIGNED_CALL(nvmlDeviceGetPcieReplayCounter, 3)
UNSIGNED_CALL(nvmlDeviceGetCurrPcieLinkGeneration, 5)
UNSIGNED_CALL(nvmlDeviceGetMaxPcieLinkGeneration, 5)
UNSIGNED_CALL(nvmlDeviceGetCurrPcieLinkWidth, 16)
UNSIGNED_CALL(nvmlDeviceGetMaxPcieLinkWidth, 16)

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    ENTER(handle);
    *current = *pending = machine->mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    ENTER(handle);
    *count = INSTANCES;
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **device) {
    ENTER(handle);
    if (index >= 2) /* two instances a GPU, the other places are free */
        return NOT_FOUND;
    struct instance *instance = &instances[number_of(gpu)][index];
    *instance = (struct instance){(uint32_t)number_of(gpu), index};
    *device = instance;
    return SUCCESS;
}
int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) {
    *id = instance_of(handle)->number + 1;
    return SUCCESS;
}
int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *id) {
    (void)handle;
    *id = 0;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *answer) {
    ENTER(handle);
    if (sensor != 0)
        return INVALID;
    *answer = gpu->temperature;
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *answer) {
    ENTER(handle);
    *answer = gpu->energy_millijoules;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *answer) {
    ENTER(handle);
    *answer = kind == 2 ? 2619 : 1980;
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(void *handle, unsigned kind, unsigned *answer) {
    ENTER(handle);
    *answer = kind == 2 ? 2619 : 1980;
    return SUCCESS;
}

#ifdef WITHOUT_NEW_SYMBOLS
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *answer) {
    ENTER(handle);
    *answer = 1;
    return SUCCESS;
}
struct fabric_old {
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
};
int nvmlDeviceGetGpuFabricInfo(void *handle, struct fabric_old *fabric) {
    ENTER(handle);
    memset(fabric, 0, sizeof *fabric);
    fabric->state = 3;
    return SUCCESS;
}
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *answer) {
    ENTER(handle);
    *answer = 4;
    return SUCCESS;
}
struct margin {
    unsigned version;
    int margin;
};
int nvmlDeviceGetMarginTemperature(void *handle, struct margin *margin) {
    ENTER(handle);
    margin->margin = (int)gpu->margin;
    return SUCCESS;
}
struct fabric {
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned health;
};
int nvmlDeviceGetGpuFabricInfoV(void *handle, struct fabric *fabric) {
    ENTER(handle);
    if (fabric->version != 0x02000024)
        return INVALID;
    fabric->state = 3;
    fabric->status = 0;
    return SUCCESS;
}
#endif

struct rates {
    unsigned gpu, memory;
};
int nvmlDeviceGetUtilizationRates(void *handle, struct rates *rates) {
    ENTER(handle);
    if (machine->mig)
        return NOT_SUPPORTED;
    rates->gpu = gpu->utilization;
    rates->memory = gpu->utilization / 2;
    return SUCCESS;
}
struct memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory *memory) {
    if (memory->version != 0x02000028)
        return INVALID;
    if (instance_of(handle) != NULL) {
        *memory = (struct memory){memory->version, 40ull << 30, 0, 30ull << 30, 10ull << 30};
        return SUCCESS;
    }
    ENTER(handle);
    memory->total = 81559ull << 20;
    memory->used = 1ull << 30;
    memory->reserved = 0;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending) {
    ENTER(handle);
    *current = *pending = !gpu->ecc_off;
    return SUCCESS;
}
int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, unsigned long long *answer) {
    ENTER(handle);
    if (gpu->ecc_off || counter != 0)
        return NOT_SUPPORTED;
    *answer = kind == 0 ? gpu->ecc_corrected : gpu->ecc_uncorrected;
    return SUCCESS;
}
struct sram {
    unsigned version;
    unsigned long long counts[11];
    unsigned over;
};
int nvmlDeviceGetSramEccErrorStatus(void *handle, struct sram *status) {
    ENTER(handle);
    memset(status->counts, 0, sizeof status->counts);
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(void *handle, unsigned *correctable, unsigned *uncorrectable,
                              unsigned *pending, unsigned *failure) {
    ENTER(handle);
    *correctable = *uncorrectable = 0;
    *pending = gpu->remap_pending;
    *failure = gpu->remap_failure;
    return SUCCESS;
}
struct histogram {
    unsigned max, high, partial, low, none;
};
int nvmlDeviceGetRowRemapperHistogram(void *handle, struct histogram *banks) {
    ENTER(handle);
    *banks = (struct histogram){2560, 0, 0, 0, 0};
    return SUCCESS;
}
int nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *active) {
    ENTER(handle);
    if (link >= LINKS)
        return NOT_SUPPORTED;
    *active = link >= gpu->links_down;
    return SUCCESS;
}

struct value {
    uint32_t id, scope;
    int64_t at, latency;
    uint32_t type;
    int code;
    union {
        double real;
        uint32_t small;
        uint64_t large;
    } value;
};
int nvmlDeviceGetFieldValues(void *handle, int count, struct value *values) {
    ENTER(handle);
    for (int i = 0; i < count; i++) {
        struct value *value = &values[i];
        value->code = SUCCESS;
        value->value.large = 0;
        switch (value->id) {
        case 82: value->value.small = gpu->memory_temperature; break;
        case 91: value->value.small = LINKS; break;
        case 161: case 162: case 163: value->value.large = value->scope == 2; break;
        case 230: value->value.small = gpu->recovery_action; break;
        default: value->code = NOT_SUPPORTED;
        }
        if (gpu->field_error)
            value->code = (int)gpu->field_error;
    }
    return SUCCESS;
}

struct support {
    unsigned version, supported;
};
int nvmlGpmQueryDeviceSupport(void *handle, struct support *support) {
    ENTER(handle);
    support->supported = !machine->no_gpm;
    return SUCCESS;
}
struct sample {
    unsigned taken, utilization;
};
int nvmlGpmSampleAlloc(struct sample **sample) {
    *sample = calloc(1, sizeof **sample);
    return SUCCESS;
}
int nvmlGpmSampleFree(struct sample *sample) { free(sample); return SUCCESS; }
int nvmlGpmSampleGet(void *handle, struct sample *sample) {
    ENTER(handle);
    if (machine->mig)
        return NOT_SUPPORTED;
    *sample = (struct sample){sample->taken + 1, gpu->utilization};
    return SUCCESS;
}
struct metric {
    unsigned id;
    int code;
    double value;
    char *names[3];
};
struct metrics {
    unsigned version, count;
    struct sample *older, *newer;
    struct metric metric[];
};
int nvmlGpmMetricsGet(struct metrics *metrics) {
    if (!metrics->older->taken || !metrics->newer->taken)
        return INVALID;
    for (unsigned i = 0; i < metrics->count; i++) {
        struct metric *metric = &metrics->metric[i];
        metric->code = SUCCESS;
        switch (metric->id) {
        case 2: metric->value = metrics->newer->utilization; break;
        case 3: case 5: metric->value = metrics->older->utilization; break;
        case 10: metric->value = 25; break;
        case 60: case 61: metric->value = 1024; break;
        default: metric->code = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}

struct process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count,
                                            struct process *processes) {
    ENTER(handle);
    unsigned room = *count;
    *count = gpu->processes;
    if (gpu->processes == 0)
        return SUCCESS;
    if (processes == NULL || room < gpu->processes)
        return INSUFFICIENT;
    for (unsigned i = 0; i < gpu->processes; i++)
        processes[i] = (struct process){gpu->pids[i], 1ull << 30, 0xffffffffu, 0xffffffffu};
    return SUCCESS;
}

int nvmlEventSetCreate(struct set **set) {
    hang_while_told();
    *set = calloc(1, sizeof **set);
    (*set)->read = machine->events_written;
    return SUCCESS;
}
int nvmlEventSetFree(struct set *set) { free(set); return SUCCESS; }
int nvmlDeviceGetSupportedEventTypes(void *handle, unsigned long long *types) {
    ENTER(handle);
    *types = 0x8 | 0x2;
    return SUCCESS;
}
int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, struct set *set) {
    ENTER(handle);
    if (types & ~(unsigned long long)(0x8 | 0x2))
        return NOT_SUPPORTED;
    set->watched |= 1u << number_of(gpu);
    return SUCCESS;
}
struct event_data {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};
int nvmlEventSetWait_v2(struct set *set, struct event_data *data, unsigned milliseconds) {
    for (unsigned waited = 0; waited <= milliseconds; waited += 20) {
        uint32_t written = *(volatile uint32_t *)&machine->events_written;
        while (set->read < written) {
            struct event *event = &machine->events[set->read++ % EVENTS];
            if (!(set->watched & (1u << event->gpu)))
                continue;
            *data = (struct event_data){&machine->gpu[event->gpu], event->type, event->data, 0, 0};
            return SUCCESS;
        }
        usleep(20000);
    }
    return TIMEOUT;
}
