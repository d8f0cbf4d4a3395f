// CUDA devices whose memory is the host's and whose kernels are the CPU's, for a torch that was built without CUDA.
//
// As on a GPU: operands of one operation lie on one device (numbers excepted), a generator on its own, a view stays a
// view, new memory holds anything (NaN here), another process maps it by a handle, and an operation for which a host
// waits fails while it records and in torch.cuda.set_sync_debug_mode("error"). Unlike there, kernels run when asked.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

namespace {

constexpr c10::DeviceIndex kDevices = 2;
thread_local c10::DeviceIndex current = 0;
thread_local c10::StreamId streams[kDevices] = {0, 0};
std::atomic<c10::StreamId> last_stream{0};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::kCUDA;
  explicit Guard(c10::DeviceType) {}
  Guard() = default;
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device getDevice() const override { return {c10::kCUDA, current}; }
  void uncheckedSetDevice(c10::Device d) const noexcept override { current = d.index(); }
  void setDevice(c10::Device d) const override {
    TORCH_CHECK(0 <= d.index() && d.index() < kDevices, "CUDA error: invalid device ordinal");
    current = d.index();
  }
  c10::Device exchangeDevice(c10::Device d) const override {
    c10::Device before = getDevice();
    setDevice(d);
    return before;
  }
  c10::Stream getStream(c10::Device d) const override {
    return c10::Stream(c10::Stream::UNSAFE, d, streams[d.index() < 0 ? current : d.index()]);
  }
  c10::Stream getNewStream(c10::Device d, int) const override {
    return c10::Stream(c10::Stream::UNSAFE, d, ++last_stream);
  }
  c10::Stream exchangeStream(c10::Stream s) const override {
    c10::Stream before = getStream(s.device());
    streams[s.device_index()] = s.id();
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// A device's memory: one file of this process that others can map, as by CUDA IPC. What is new in it is all ones, which
// is NaN in floats.
struct Memory final : c10::Allocator {
  static constexpr size_t kSize = size_t(16) << 30, kHeader = 64;  // virtual: pages are there once they are touched

  c10::DataPtr allocate(size_t n) override {
    const c10::Device device(c10::kCUDA, current);
    if (!n) return {nullptr, nullptr, &c10::detail::deleteNothing, device};
    std::lock_guard<std::mutex> lock(mutex);
    size_t order = 7;
    while ((size_t(1) << order) < n + kHeader) ++order;
    char* block;
    if (free[order].empty()) {
      TORCH_CHECK(used + (size_t(1) << order) <= kSize, "CUDA out of memory. Tried to allocate ", n, " bytes.");
      block = base() + used;
      used += size_t(1) << order;
      *reinterpret_cast<size_t*>(block) = order;
    } else {
      block = free[order].back();
      free[order].pop_back();
    }
    std::memset(block + kHeader, 0xff, n);
    return {block + kHeader, block, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }

  char* base() {
    if (!start) {
      file = memfd_create("emulated-gpu", 0);
      TORCH_CHECK(file >= 0 && !ftruncate(file, kSize), "no memory for an emulated GPU");
      start = map(file);
    }
    return start;
  }
  static char* map(int file) {
    void* at = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    TORCH_CHECK(at != MAP_FAILED, "an emulated GPU's memory can't be mapped");
    return static_cast<char*>(at);
  }
  static void release(void* block);

  int file = -1;
  size_t used = 0;
  std::vector<char*> free[48];
  std::mutex mutex;

 private:
  char* start = nullptr;
};
Memory& memory = *new Memory;  // outlives every tensor

void Memory::release(void* block) {
  std::lock_guard<std::mutex> lock(memory.mutex);
  memory.free[*static_cast<size_t*>(block)].push_back(static_cast<char*>(block));
}

// What a host must not do while it records, and where it would wait for its device.
std::atomic<bool> capturing{false};
std::atomic<int64_t> sync_debug_mode{0};

void waits(const std::string& what) {
  TORCH_CHECK(!capturing, "CUDA error: operation not permitted when stream is capturing (", what, ")");
  TORCH_CHECK(sync_debug_mode != 2, "called a synchronizing CUDA operation (", what, ")");
  if (sync_debug_mode == 1) TORCH_WARN("called a synchronizing CUDA operation (", what, ")");
}

// A CPU's generator behind a device's name.
struct Generator final : c10::GeneratorImpl {
  explicit Generator(c10::DeviceIndex index, at::Generator inside)
      : c10::GeneratorImpl({c10::kCUDA, index}, c10::DispatchKeySet(c10::DispatchKey::CUDA)), inside(inside) {}
  void set_current_seed(uint64_t seed) override { inside.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { inside.set_offset(offset); }
  uint64_t get_offset() const override { return inside.get_offset(); }
  uint64_t current_seed() const override { return inside.current_seed(); }
  uint64_t seed() override { return inside.seed(); }
  void set_state(const c10::TensorImpl& state) override {
    TORCH_CHECK(state.device_type() == c10::kCPU, "RNG state must be a torch.ByteTensor");
    inside.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return inside.unsafeGetGeneratorImpl()->get_state();
  }
  Generator* clone_impl() const override { return new Generator(device_.index(), inside.clone()); }
  void graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& other) override {
    auto* theirs = static_cast<Generator*>(other.get());
    inside = theirs->inside, registered = theirs->registered, lost = theirs->lost;
  }
  at::Generator inside;
  bool registered = false;  // with the graph that is being recorded
  bool lost = false;  // in a recording that failed
};

// Host memory that kernels may use: where it begins -> where it ends, and the device that was current.
std::map<int64_t, std::pair<int64_t, int64_t>> registered;

int64_t host_register(int64_t at, int64_t size) {
  auto after = registered.lower_bound(at + size);
  if (after != registered.begin() && at < std::prev(after)->second.first) return 712;  // cudaErrorHostMemoryAlready...
  registered[at] = {at + size, current};
  return 0;
}

int64_t host_unregister(int64_t at) { return registered.erase(at) ? 0 : 713; }  // cudaErrorHostMemoryNotRegistered

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  int getNumGPUs() const override { return kDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex current_device() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex d) const override { current = d; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::kCPU); }
  bool isPinnedPtr(const void*) const override { return false; }
  c10::Device getDeviceFromPtr(void* data) const override {
    const int64_t at = reinterpret_cast<int64_t>(data);
    auto after = registered.upper_bound(at);
    TORCH_CHECK(after != registered.begin() && at < (--after)->second.first, "The specified pointer resides on host ",
                "memory and is not registered with any CUDA device.");
    return {c10::kCUDA, static_cast<c10::DeviceIndex>(after->second.second)};
  }
  c10::Allocator* getCUDADeviceAllocator() const override { return &memory; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    static std::vector<at::Generator> all = {getNewGenerator(0), getNewGenerator(1)};
    return all[index < 0 ? current : index];
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(index < 0 ? current : index, at::detail::createCPUGenerator());
  }
};
using at::CUDAHooksArgs;
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)

// The same memory under another device's name.
c10::Storage alias(const c10::Storage& storage, c10::Device device) {
  auto* keep = new c10::Storage(storage);
  c10::DataPtr data(storage.mutable_data(), keep, [](void* s) { delete static_cast<c10::Storage*>(s); }, device);
  return c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), nullptr, false);
}

at::Tensor renamed(const at::Tensor& tensor, c10::Device device) {
  auto keys = c10::DispatchKeySet(device.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU);
  auto storage = alias(tensor.storage(), device);
  auto out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, tensor.dtype());
  auto* impl = out.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) impl->_set_conj(true);
  if (tensor.is_neg()) impl->_set_neg(true);
  return out;
}

// An operation on devices' memory by the CPU's kernel.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack) : op(op), stack(stack) {}

  void run() {
    const size_t n = op.schema().arguments().size(), begin = stack->size() - n;
    const std::string& name = op.operator_name().name;
    for (const char* one : {"nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim", "bincount"})
      if (name == std::string("aten::") + one) waits(name);
    for (size_t i = 0; i < n; ++i) look((*stack)[begin + i]);
    for (size_t i = 0; i < n; ++i) {
      auto& value = (*stack)[begin + i];
      if (value.isDevice() && value.toDevice().is_cuda()) place(value.toDevice()), value = c10::Device(c10::kCPU);
    }
    if (!found) device = {c10::kCUDA, current}, found = true;
    for (size_t i = 0; i < n; ++i) (*stack)[begin + i] = to_host((*stack)[begin + i]);
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    for (auto& pair : pairs) follow(pair);
    const size_t results = op.schema().returns().size();
    for (size_t i = stack->size() - results; i < stack->size(); ++i) (*stack)[i] = to_device((*stack)[i]);
  }

 private:
  struct Pair { at::Tensor host, mine; };

  void place(c10::Device d) {
    if (d.index() < 0) d = {c10::kCUDA, current};
    TORCH_CHECK(!found || d == device, "Expected all tensors to be on the same device, but found at least two devices,",
                " ", device, " and ", d, "! (", op.operator_name(), ")");
    device = d, found = true;
  }

  void look(const c10::IValue& value) {
    if (value.isTensor()) return look(value.toTensor());
    if (value.isList())
      for (const auto& one : value.toListRef()) value_is_index = true, look(one), value_is_index = false;
  }

  void look(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (tensor.is_cuda()) {
      const bool index = op.operator_name().name.find("index") != std::string::npos;
      if (index && tensor.scalar_type() == at::kBool && value_is_index) waits("an index of booleans");
      return place(tensor.device());
    }
    TORCH_CHECK(tensor.dim() == 0, "Expected all tensors to be on the same device, but found at least two devices, ",
                found ? device.str() : "cuda", " and cpu! (", op.operator_name(), ")");
  }

  c10::IValue to_host(const c10::IValue& value) {
    if (value.isTensor()) return to_host(value.toTensor());
    if (value.isGenerator()) {
      auto generator = value.toGenerator();
      TORCH_CHECK(generator.device() == device, "Expected a '", device, "' generator device but found '",
                  generator.device(), "'");
      auto* mine = static_cast<Generator*>(generator.unsafeGetGeneratorImpl());
      TORCH_CHECK(!mine->lost, "Offset increment outside graph capture encountered unexpectedly.");
      TORCH_CHECK(!capturing || mine->registered, "a generator is used in a graph that it was not registered with");
      return mine->inside;
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& one : value.toTensorVector()) list.push_back(to_host(one));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& one : value.toOptionalTensorVector())
        list.push_back(one ? std::optional<at::Tensor>(to_host(*one)) : std::nullopt);
      return list;
    }
    return value;
  }

  at::Tensor to_host(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    for (auto& pair : pairs) if (pair.mine.is_same(tensor)) return pair.host;
    // what has no memory yet may be given some
    auto host = tensor.storage().nbytes() ? renamed(tensor, c10::kCPU)
                                          : at::empty(tensor.sizes(), tensor.options().device(c10::kCPU));
    pairs.push_back({host, tensor});
    return host;
  }

  // An output that was given another size, or memory.
  void follow(Pair& pair) {
    if (pair.host.numel() && pair.host.data_ptr() != pair.mine.data_ptr())
      pair.mine.unsafeGetTensorImpl()->set_storage_keep_dtype(alias(pair.host.storage(), device));
    if (pair.host.sizes() != pair.mine.sizes() || pair.host.strides() != pair.mine.strides())
      pair.mine.unsafeGetTensorImpl()->set_sizes_and_strides(pair.host.sizes(), pair.host.strides());
  }

  c10::IValue to_device(const c10::IValue& value) {
    if (value.isTensor()) return to_device(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& one : value.toTensorVector()) list.push_back(to_device(one));
      return list;
    }
    return value;
  }

  at::Tensor to_device(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cuda()) return tensor;
    for (auto& pair : pairs) {
      if (pair.host.is_same(tensor)) return pair.mine;
      TORCH_CHECK(!tensor.is_alias_of(pair.host), op.operator_name(), " gives a view: tell device.cpp how to make it");
    }
    return renamed(tensor, device);
  }

  const c10::OperatorHandle& op;
  torch::jit::Stack* stack;
  std::vector<Pair> pairs;
  c10::Device device = c10::kCPU;
  bool found = false, value_is_index = false;
};

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Call(op, stack).run(); }

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  auto keys = c10::DispatchKeySet(c10::DispatchKey::CUDA);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  auto keys = c10::DispatchKeySet(c10::DispatchKey::CUDA);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

at::Tensor here(const at::Tensor& tensor) { return tensor.is_cuda() ? renamed(tensor, c10::kCPU) : tensor; }

// Between devices, or one and the host.
at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (to.is_cuda() != from.is_cuda() && !(non_blocking && !capturing)) waits("a copy between host and device");
  auto target = here(to);
  target.copy_(here(from), non_blocking);
  return to;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  auto target = to;
  return copy_(target, from, non_blocking);
}

at::Scalar local_scalar_dense(const at::Tensor& tensor) {
  waits("a look at a value");
  return here(tensor).item();
}

at::Tensor& set_storage(at::Tensor& tensor, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                        c10::SymIntArrayRef stride) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size), strides = C10_AS_INTARRAYREF_SLOW(stride);
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(source);
  if (stride.empty()) {
    impl->set_sizes_contiguous(sizes);
    impl->set_storage_offset(offset.expect_int());
  } else {
    impl->set_sizes_and_strides(sizes, strides, offset.expect_int());
  }
  return tensor;
}

// Memory of the host as the current device's.
at::Tensor as_cuda(const at::Tensor& tensor) { return renamed(tensor, {c10::kCUDA, current}); }

// CUDA IPC: where another process finds a tensor's storage, and that storage there, as bytes.
std::vector<int64_t> handle(const at::Tensor& tensor) {
  const char* data = static_cast<const char*>(tensor.storage().data());
  const int64_t at = data - memory.base(), n = tensor.storage().nbytes();
  const bool mine = 0 <= at && at < static_cast<int64_t>(Memory::kSize);
  TORCH_CHECK(n == 0 || mine, "memory of another process, or the host's");
  return {getpid(), memory.file, n ? at : 0, n, tensor.get_device()};
}

at::Tensor attach(c10::IntArrayRef handle) {
  static std::map<int64_t, char*> maps;
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  char*& start = maps[handle[0]];
  if (!start) {
    auto path = "/proc/" + std::to_string(handle[0]) + "/fd/" + std::to_string(handle[1]);
    const int file = open(path.c_str(), O_RDWR);
    TORCH_CHECK(file >= 0, "CUDA error: invalid resource handle (", path, ")");
    start = Memory::map(file);
    close(file);
  }
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(handle[4]));
  c10::DataPtr data(start + handle[2], nullptr, &c10::detail::deleteNothing, device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), handle[3], std::move(data), nullptr, false);
  auto keys = c10::DispatchKeySet(c10::DispatchKey::CUDA);
  auto out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, caffe2::TypeMeta::Make<uint8_t>());
  out.unsafeGetTensorImpl()->set_sizes_contiguous({handle[3]});
  return out;
}

int64_t exchange_device(int64_t device) {
  const int64_t before = current;
  if (device >= 0) Guard().setDevice({c10::kCUDA, static_cast<c10::DeviceIndex>(device)});
  return before;
}

int64_t exchange_stream(int64_t device, int64_t stream) {
  return Guard().exchangeStream(c10::Stream(
      c10::Stream::UNSAFE, {c10::kCUDA, static_cast<c10::DeviceIndex>(device)}, stream)).id();
}

void set_registered(at::Generator generator, bool now) {
  TORCH_CHECK(generator.device().is_cuda(), "a graph takes a CUDA generator");
  static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->registered = now;
}

void set_lost(at::Generator generator) { static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->lost = true; }

void set_capturing(bool now) { capturing = now; }
void set_sync_debug_mode(int64_t mode) { sync_debug_mode = mode; }
int64_t get_sync_debug_mode() { return sync_debug_mode; }

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("copy_", &copy_);
  m.impl("_copy_from", &copy_from);
  m.impl("_local_scalar_dense", &local_scalar_dense);
}

TORCH_LIBRARY(emulated_gpu, m) {
  m.def("as_cuda(Tensor cpu) -> Tensor", &as_cuda);
  m.def("handle(Tensor tensor) -> int[]", &handle);
  m.def("attach(int[] handle) -> Tensor", &attach);
  m.def("host_register(int at, int size) -> int", &host_register);
  m.def("host_unregister(int at) -> int", &host_unregister);
  m.def("exchange_device(int device) -> int", &exchange_device);
  m.def("exchange_stream(int device, int stream) -> int", &exchange_stream);
  m.def("set_registered(Generator? generator, bool now) -> ()", &set_registered);
  m.def("set_lost(Generator? generator) -> ()", &set_lost);
  m.def("set_capturing(bool now) -> ()", &set_capturing);
  m.def("set_sync_debug_mode(int mode) -> ()", &set_sync_debug_mode);
  m.def("get_sync_debug_mode() -> int", &get_sync_debug_mode);
}

}  // namespace
