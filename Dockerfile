# diffstyle in a container; docs/docker.md has the commands. The ordinary wheels of torch run on the CPU and on NVIDIA
# GPUs; TORCH_INDEX, an address of wheels without CUDA, makes an image for the CPU alone, several gigabytes smaller.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""

WORKDIR /opt/diffstyle
# What changes rarely comes first, so that a change of the code does not install torch again.
COPY requirements.txt constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
 && python -m pip install --no-cache-dir -c constraints.txt -r requirements.txt
COPY pyproject.toml MANIFEST.in README.md LICENSE main.py ./
COPY diffstyle diffstyle
COPY models models
COPY configs configs
COPY pretrained/avatars64.pt pretrained/avatars64.intervals.json pretrained/zoo.yml pretrained/
RUN python -m pip install --no-cache-dir --no-deps .

# Checkpoints are kept in a folder that any user may write and that outlives the container when it is mounted.
ENV XDG_CACHE_HOME=/cache
RUN mkdir -m 1777 /cache
WORKDIR /work
ENTRYPOINT ["diffstyle"]
CMD ["--help"]
