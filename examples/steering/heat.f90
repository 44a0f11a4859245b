! Heat on a square plate whose edges are held at 0, as an MPI program that can be steered.
!
!     heat STEPS FILE [STEP NU]
!
! Each rank owns some columns. Otherwise it is heat.c, and computes the same numbers.
program heat
  use mpi
  use ipmpi_steer
  implicit none
  integer, parameter :: dp = kind(1d0), n = 64
  real(dp), allocatable, target :: T(:, :)
  real(dp), target :: nu = 1
  real(dp), parameter :: dt = 2d-5, h = 1d0 / (n + 1)
  real(dp) :: changed_nu
  integer :: ierr, rank, ranks, first, columns, step, steps = 1000, changed_at = -1
  character(256) :: word

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  if (command_argument_count() > 0) then
    call get_command_argument(1, word)
    read (word, *) steps
  end if
  if (command_argument_count() > 3) then
    call get_command_argument(3, word)
    read (word, *) changed_at
    call get_command_argument(4, word)
    read (word, *) changed_nu
  end if
  first = n * rank / ranks
  columns = n * (rank + 1) / ranks - first
  allocate (T(0:n + 1, 0:columns + 1))
  T = 0
  T(1:n / 2, 1:min(columns, max(0, n / 4 - first))) = 1  ! a hot corner

  ! --- four lines for steering ---
  call ipmpi_attach(MPI_COMM_WORLD)
  call ipmpi_double("nu", nu)
  call ipmpi_array("T", T)
  call ipmpi_global("T", offset=[0, first], extents=[n, n], halo=[1, 1])

  do step = 0, steps - 1
    if (ipmpi_tick(step)) exit
    if (step == changed_at) nu = changed_nu
    call exchange()
    call advance(nu * dt / (h * h))
  end do

  call ipmpi_detach()
  if (command_argument_count() > 1) then
    call get_command_argument(2, word)
    call write_field(trim(word))
  end if
  call MPI_Finalize(ierr)

contains

  subroutine exchange()
    integer :: before, after
    before = merge(rank - 1, MPI_PROC_NULL, rank > 0)
    after = merge(rank + 1, MPI_PROC_NULL, rank < ranks - 1)
    call MPI_Sendrecv(T(0, 1), n + 2, MPI_DOUBLE_PRECISION, before, 0, T(0, columns + 1), n + 2, &
                      MPI_DOUBLE_PRECISION, after, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
    call MPI_Sendrecv(T(0, columns), n + 2, MPI_DOUBLE_PRECISION, after, 1, T(0, 0), n + 2, &
                      MPI_DOUBLE_PRECISION, before, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
  end subroutine

  subroutine advance(r)
    real(dp), intent(in) :: r
    real(dp) :: next(n, columns)
    next = T(1:n, 1:columns) + r * (((T(0:n - 1, 1:columns) + T(2:n + 1, 1:columns)) &
      + (T(1:n, 0:columns - 1) + T(1:n, 2:columns + 1))) - 4 * T(1:n, 1:columns))
    T(1:n, 1:columns) = next
  end subroutine

  subroutine write_field(path)
    character(*), intent(in) :: path
    real(dp) :: all(n, n)
    integer :: starts(ranks), counts(ranks), each, unit
    starts = [(n * each / ranks * n, each = 0, ranks - 1)]
    counts = [(n * (each + 1) / ranks * n, each = 0, ranks - 1)] - starts
    call MPI_Gatherv(T(1:n, 1:columns), n * columns, MPI_DOUBLE_PRECISION, all, counts, starts, &
                     MPI_DOUBLE_PRECISION, 0, MPI_COMM_WORLD, ierr)
    if (rank == 0) then
      open (newunit=unit, file=path, access="stream", form="unformatted", status="replace")
      write (unit) transpose(all)  ! row by row, as the other programs do
      close (unit)
    end if
  end subroutine
end program
