from cliplens.cli import main

main()
